//! `layers::*` and `service::*` beside each other and beside what programs import in the same way.

/// A name that two globs bring is an error only where it is used, so each is used.
macro_rules! beside {
    ($($module:ident: $($path:ident)::+ => $($name:ident)+;)+) => {$(
        #[allow(unused_imports, reason = "what does not clash is not used")]
        mod $module {
            use $($path)::+::*;
            use tower_kernels::layers::*;
            use tower_kernels::service::*;

            mod of_theirs {
                $(use super::$name as _;)+
            }
            mod of_ours {
                use super::{KernelRequest as _, KernelService as _, MetricsLayer as _, Payload as _};
            }
        }
    )+};
}

beside! {
    std_any: std::any => Any TypeId;
    std_borrow: std::borrow => Borrow Cow ToOwned;
    std_cell: std::cell => Cell OnceCell RefCell;
    std_cmp: std::cmp => Ordering Reverse;
    std_collections: std::collections => BTreeMap BTreeSet BinaryHeap HashMap HashSet LinkedList VecDeque;
    std_error: std::error => Error;
    std_fmt: std::fmt => Arguments Debug Display Error Formatter Result Write;
    std_future: std::future => Future IntoFuture Pending PollFn Ready;
    std_hash: std::hash => BuildHasher Hash Hasher;
    std_io: std::io => BufRead BufReader Cursor Empty Error ErrorKind Read Result Seek Sink Take Write;
    std_iter: std::iter => Chain Empty Filter Iterator Map Once Peekable Repeat Skip Sum Take Zip;
    std_marker: std::marker => PhantomData;
    std_net: std::net => IpAddr SocketAddr TcpListener TcpStream;
    std_num: std::num => NonZero NonZeroUsize Wrapping;
    std_ops: std::ops => Add ControlFlow Deref DerefMut Index Range;
    std_path: std::path => Component Path PathBuf Prefix;
    std_pin: std::pin => Pin;
    std_process: std::process => Child Command ExitCode Output Stdio;
    std_sync: std::sync => Arc Barrier Condvar Mutex Once OnceLock RwLock Weak;
    std_task: std::task => Context Poll Wake Waker;
    std_thread: std::thread => Builder JoinHandle Scope Thread;
    std_time: std::time => Duration Instant SystemTime;
    prelude: std::prelude::v1 => Box Clone Default Err From Into None Ok Option Result Some String ToString Vec;
    tower_all: tower => BoxError Layer Service ServiceBuilder ServiceExt buffer layer limit load load_shed retry
        service_fn timeout util;
    tower_timeout: tower::timeout => Timeout error;
    tower_retry: tower::retry => Policy Retry backoff;
    tokio_all: tokio => io net runtime signal sync task time;
    tokio_time: tokio::time => Interval Sleep Timeout error timeout;
    tokio_sync: tokio::sync => Barrier Mutex Notify Semaphore mpsc oneshot;
    http_all: http => HeaderMap Method Request Response StatusCode;
    futures_all: futures => Future FutureExt Sink Stream StreamExt;
    bytes_all: bytes => Buf BufMut Bytes;
    prometheus: prometheus_client => collector encoding metrics registry;
}

/// The crates whose names the modules of the layers have, and others that are used beside them.
mod crates {
    #![allow(unused_imports, reason = "it is about names")]
    use tower_kernels::layers::*;
    use tower_kernels::service::*;

    #[test]
    fn are_not_shadowed() {
        tracing::info!("the crate");
        let _: Option<(tokio::time::Duration, tower::BoxError, http::Method, bytes::Bytes, serde_json::Value)> = None;
        #[cfg(feature = "axum")]
        let _ = axum::Router::<()>::new();
        #[cfg(feature = "hyper")]
        let _ = hyper::Method::GET;
        #[cfg(feature = "grpc")]
        let _ = tonic::Code::Ok;
        #[cfg(feature = "actix")]
        let _: Option<actix::MailboxError> = None;
    }
}

/// A module would shadow the crate of its name, and there is a crate of nearly every name.
#[test]
fn neither_has_modules() {
    for module in [include_str!("../../src/layers.rs"), include_str!("../../src/service/mod.rs")] {
        let public = module.lines().map(str::trim_start).filter(|line| line.starts_with("pub mod "));
        assert_eq!(public.collect::<Vec<_>>(), [""; 0]);
    }
}
