//! The subcommand `run`: runs one kernel in this process.

use std::error::Error;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tower::ServiceExt;
use tower_kernels::backends::Local;
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::backends::cuda::CudaBackend;
use tower_kernels::error::{Classify, chain};
use tower_kernels::service::{
    Job, KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload, Progress,
};
use tower_service::Service;

use crate::Outcome;
use crate::config::Span;
use crate::exit::{Exit, Failure};

/// Runs that take longer than this show their progress.
const PROGRESS_AFTER: Duration = Duration::from_millis(400);
/// How often the progress is updated.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The text below the options.
pub(crate) const HELP: &str = "\
Examples:
  tower-kernels run linalg/saxpy --input saxpy.json
  tower-kernels run risk/option-pricing --backend cpu --timeout 30s < options.json > prices.json";

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel's id, or one of its aliases.
    id: String,
    /// File with the input, a JSON document; `-` is stdin.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Deadline of the run, such as 500ms or 30s [default: none].
    #[arg(long, value_name = "TIME", value_parser = str::parse::<Span>)]
    timeout: Option<Span>,
    /// Backend to run on [default: cuda if there is a device, else cpu].
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Backend {
    Cpu,
    Cuda,
}

pub(crate) fn main(args: Args) -> Outcome {
    let registry = crate::kernels::registry()?;
    if registry.get(&args.id).is_none() {
        return Err(crate::kernels::unknown(&registry, &args.id).into());
    }
    let mut request = KernelRequest::new(args.id.clone(), Payload::json(read(&args.input)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    if let Some(Span(timeout)) = args.timeout {
        request = request.with_timeout(timeout);
    }
    let registry = Arc::new(registry);
    let response = match args.backend {
        // One device is enough for one request.
        None => {
            let local = Local::with_backends(CpuBackend::new(), CudaBackend::open(0));
            runtime.block_on(run(registry, local, request))
        }
        Some(Backend::Cpu) => runtime.block_on(run(registry, CpuBackend::new(), request)),
        Some(Backend::Cuda) => {
            let device = CudaBackend::open(0);
            let device = device.map_err(|why| Exit::Unavailable.failure(format!("CUDA is not available: {why}")))?;
            runtime.block_on(run(registry, device, request))
        }
    }?;
    report(&response);
    let Payload::Json(output) = &response.payload else { return Err("the output is not JSON".into()) };
    crate::output::print([output, &b"\n"[..]].concat())?;
    Ok(Exit::Done.into())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let read = if path == "-" {
        if std::io::stdin().is_terminal() {
            eprintln!(
                "Reading the input, a JSON document, from the terminal; end it with Ctrl-D, or use --input FILE."
            );
        }
        std::io::stdin().lock().read_to_end(&mut input).map(drop)
    } else {
        std::fs::read(path).map(|bytes| input = bytes)
    };
    let name = if path == "-" { "stdin".into() } else { path.display().to_string() };
    read.map_err(|error| Exit::Input.failure(format!("{name}: {error}"))).map(|()| input)
}

/// Runs the request until it completes or Ctrl-C is pressed, which cancels it.
async fn run<B>(
    registry: Arc<KernelRegistry>,
    backend: B,
    mut request: KernelRequest,
) -> Result<KernelResponse, Box<dyn Error + Send + Sync>>
where
    B: Service<Job, Response = KernelResponse, Error = KernelError>,
{
    let progress = Progress::new();
    request.extensions.insert(progress.clone());
    let mut progress_bar = RunProgress::new(progress);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_AFTER, PROGRESS_INTERVAL);
    let mut response = std::pin::pin!(KernelService::with_backend(registry, backend).oneshot(request));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            response = &mut response => {
                progress_bar.finish();
                return response.map_err(|error| Exit::from_kind(error.kind()).failure(chain(&error).to_string()).into());
            }
            pressed = &mut interrupted => {
                pressed?;
                progress_bar.finish();
                return Err(Exit::Interrupted.failure("interrupted: the run was cancelled").into());
            }
            _ = ticks.tick() => progress_bar.update(),
        }
    }
}

/// Shows the progress of the run on stderr, if that is a terminal.
struct RunProgress {
    progress: Progress,
    bar: ProgressBar,
    counts: bool,
}

impl RunProgress {
    fn new(progress: Progress) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { progress, bar, counts: false }
    }

    fn update(&mut self) {
        if self.bar.is_hidden() {
            // Stays hidden if stderr is not a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.set_style(style("{spinner} {elapsed} {msg}"));
        }
        if let Some(total) = self.progress.total() {
            if !self.counts {
                self.bar.set_style(style("{spinner} {elapsed} [{wide_bar}] {pos}/{len} {msg}"));
                self.counts = true;
            }
            self.bar.set_length(total);
            self.bar.set_position(self.progress.done());
        }
        // Before the first step only the kernel's own estimate is known.
        if self.progress.done() > 0 {
            self.bar.set_message(format!("{} remaining", HumanDuration(self.bar.eta())));
        } else if let Some(estimate) = self.progress.estimate() {
            self.bar.set_message(format!("{} expected", HumanDuration(estimate)));
        }
        self.bar.tick();
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a literal")
}

/// Prints backend and times to stderr, if that is a terminal.
fn report(response: &KernelResponse) {
    if std::io::stderr().is_terminal() {
        let execution = &response.execution;
        let (backend, executed, queued) = (execution.backend, execution.executed, execution.queued);
        crate::output::print_error(&format!("{backend} in {executed:.2?}, after {queued:.2?} in the queue"));
    }
}
