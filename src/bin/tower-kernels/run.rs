//! `run`: one kernel, in this process.

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

/// Work that takes longer than this shows how far it is.
const LONG: Duration = Duration::from_millis(400);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Shown below the options.
pub(crate) const HELP: &str = "\
Examples:
  tower-kernels run linalg/saxpy --input saxpy.json
  tower-kernels run risk/option-pricing --backend cpu --timeout 30s < options.json > prices.json";

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kernel's id, or one of its aliases.
    id: String,
    /// The file that holds the input, a JSON document; `-` is stdin.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Give up after this time, such as 500ms or 30s; never if nothing is said.
    #[arg(long, value_name = "TIME", value_parser = str::parse::<Span>)]
    timeout: Option<Span>,
    /// What to run it on; a CUDA device where there is one if nothing is said.
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Backend {
    Cpu,
    Cuda,
}

pub(crate) fn main(args: Args) -> Outcome {
    let registry = crate::catalogue::registry()?;
    if registry.get(&args.id).is_none() {
        return Err(crate::catalogue::unknown(&registry, &args.id).into());
    }
    let mut request = KernelRequest::new(args.id.clone(), Payload::json(read(&args.input)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    if let Some(Span(timeout)) = args.timeout {
        request = request.with_timeout(timeout);
    }
    let registry = Arc::new(registry);
    let answer = match args.backend {
        // One device is enough for one request.
        None => {
            let local = Local::with_backends(CpuBackend::new(), CudaBackend::open(0));
            runtime.block_on(run(registry, local, request))
        }
        Some(Backend::Cpu) => runtime.block_on(run(registry, CpuBackend::new(), request)),
        Some(Backend::Cuda) => {
            let device = CudaBackend::open(0);
            let device = device.map_err(|why| Exit::Unavailable.because(format!("there is no CUDA: {why}")))?;
            runtime.block_on(run(registry, device, request))
        }
    }?;
    report(&answer);
    let Payload::Json(output) = &answer.payload else { return Err("the output is no JSON".into()) };
    crate::output::print([output, &b"\n"[..]].concat())?;
    Ok(Exit::Done.into())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let read = if path == "-" {
        if std::io::stdin().is_terminal() {
            eprintln!(
                "Reading the input, a JSON document, from the terminal; Ctrl-D ends it. A file is read with --input."
            );
        }
        std::io::stdin().lock().read_to_end(&mut input).map(drop)
    } else {
        std::fs::read(path).map(|bytes| input = bytes)
    };
    let name = if path == "-" { "stdin".into() } else { path.display().to_string() };
    read.map_err(|error| Exit::Input.because(format!("{name}: {error}"))).map(|()| input)
}

/// Runs the request until it is answered or Ctrl-C is pressed. What was begun has been told to stop by the return.
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
    let mut watched = Watched::new(progress);
    let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LONG, LOOK);
    let mut answer = std::pin::pin!(KernelService::with_backend(registry, backend).oneshot(request));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            answer = &mut answer => {
                watched.end();
                return answer.map_err(|error| Exit::of(error.kind()).because(chain(&error).to_string()).into());
            }
            pressed = &mut interrupted => {
                pressed?;
                watched.end();
                return Err(Exit::Interrupted.because("interrupted: the kernel was told to stop").into());
            }
            _ = look.tick() => watched.show(),
        }
    }
}

/// How far the run is, on stderr where that is a terminal.
struct Watched {
    progress: Progress,
    bar: ProgressBar,
    counts: bool,
}

impl Watched {
    fn new(progress: Progress) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self { progress, bar, counts: false }
    }

    fn show(&mut self) {
        if self.bar.is_hidden() {
            // indicatif stays hidden where stderr is no terminal.
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
        // Before the first steps the kernel's own estimate is all that is known.
        if self.progress.done() > 0 {
            self.bar.set_message(format!("{} to go", HumanDuration(self.bar.eta())));
        } else if let Some(estimate) = self.progress.estimate() {
            self.bar.set_message(format!("{} expected", HumanDuration(estimate)));
        }
        self.bar.tick();
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a literal")
}

/// Where it ran and how long it took, for whoever sits before it.
fn report(answer: &KernelResponse) {
    if std::io::stderr().is_terminal() {
        let execution = &answer.execution;
        let (backend, executed, queued) = (execution.backend, execution.executed, execution.queued);
        crate::output::tell(&format!("{backend} in {executed:.2?}, after {queued:.2?} in the queue"));
    }
}
