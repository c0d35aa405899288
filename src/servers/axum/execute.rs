//! `POST /execute` and `POST /kernels/{id}/execute`.

use std::sync::Arc;

use ::axum::body::Body;
use ::axum::extract::rejection::PathRejection;
use ::axum::extract::{Path, Request, State};
use ::axum::response::Response;
use tower_service::Service;
use tracing::Instrument;

use super::kernels::{executed_id, path_of, unknown};
use super::router::Shared;
use crate::error::AnyError;
use crate::middleware::tracing::RequestScope;
use crate::request::request_id::RequestId;
use crate::servers::http::{self as transport, Problem, ResponseBody, Target};
use crate::servers::unread_body::UnreadBody;
use crate::service::{KernelRequest, KernelResponse};

pub(super) async fn of_document<S>(State(shared): State<Arc<Shared<S>>>, request: Request) -> Response
where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError> + Clone,
{
    execute(&shared, Ok(Target::Document), request).await
}

pub(super) async fn of_input<S>(
    State(shared): State<Arc<Shared<S>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response
where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError> + Clone,
{
    let target = path_of(path).and_then(|path| match executed_id(&shared.registry, &path) {
        Some(id) => Ok(Target::Input(id.to_owned())),
        None if shared.registry.get(&path).is_some() => Err(Problem::method_not_allowed("GET, HEAD")),
        None => {
            let id = path.strip_suffix("/execute").unwrap_or(&path);
            request.extensions().get::<RequestScope>().into_iter().for_each(|scope| scope.set_kernel(id));
            Err(unknown(id))
        }
    });
    execute(&shared, target, request).await
}

async fn execute<S>(shared: &Shared<S>, target: Result<Target, Problem>, request: Request) -> Response
where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError> + Clone,
{
    let (mut parts, mut body) = request.into_parts();
    let request_id = RequestId::from_headers(&parts.headers);
    let span = RequestScope::enter_handler(&mut parts.extensions, request_id.as_str());
    let response = async {
        let execution = async {
            let service = shared.service.clone();
            transport::execute(service, &parts, &request_id, target?, &mut body, &shared.limits).await
        };
        let result = execution.await;
        shared.outcomes.record(result.as_ref().err());
        match result {
            Ok(output) => output.into_response(&request_id),
            Err(problem) => {
                let unread = UnreadBody::of(parts.version, &parts.headers);
                unread.finish(body, problem.into_response(&request_id)).await
            }
        }
    };
    response.instrument(span).await
}

impl From<ResponseBody> for Body {
    fn from(body: ResponseBody) -> Self {
        Self::new(body)
    }
}
