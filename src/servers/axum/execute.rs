//! `POST /execute` and `POST /kernels/{id}/execute`.

use std::error::Error;
use std::sync::Arc;

use ::axum::body::Body;
use ::axum::extract::rejection::PathRejection;
use ::axum::extract::{Path, Request, State};
use ::axum::response::Response;
use tower_service::Service;

use super::kernels::{executes, path_of, unknown};
use super::router::Shared;
use crate::error::Classify;
use crate::servers::http::{self as transport, Problem, RequestHead, RequestId, ResponseBody, Target};
use crate::service::{KernelRequest, KernelResponse};

pub(super) async fn of_document<S>(State(shared): State<Arc<Shared<S>>>, request: Request) -> Response
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Classify + Error + 'static> + Clone,
{
    execute(&shared, Ok(Target::Document), request).await
}

pub(super) async fn of_input<S>(
    State(shared): State<Arc<Shared<S>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Classify + Error + 'static> + Clone,
{
    let target = path_of(path).and_then(|path| match executes(&shared.registry, &path) {
        Some(id) => Ok(Target::Input(id.to_owned())),
        None if shared.registry.get(&path).is_some() => Err(Problem::method_not_allowed("GET, HEAD")),
        None => Err(unknown(path.strip_suffix("/execute").unwrap_or(&path))),
    });
    execute(&shared, target, request).await
}

async fn execute<S>(shared: &Shared<S>, target: Result<Target, Problem>, request: Request) -> Response
where
    S: Service<KernelRequest, Response = KernelResponse, Error: Classify + Error + 'static> + Clone,
{
    let (parts, body) = request.into_parts();
    let request_id = RequestId::of(&parts.headers);
    let execution = async {
        let head = RequestHead::read(&parts, shared.limits.timeout)?;
        let service = shared.service.clone();
        transport::execute(service, &parts, head, &request_id, target?, body, &shared.limits).await
    };
    let result = execution.await;
    shared.outcomes.record(result.as_ref().err());
    match result {
        Ok(answer) => answer.into_response(&request_id),
        Err(problem) => problem.into_response(&request_id),
    }
}

impl From<ResponseBody> for Body {
    fn from(body: ResponseBody) -> Self {
        Self::new(body)
    }
}
