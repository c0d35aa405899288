//! Registries of no kernels and of very many.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::Code;
use tower_kernels::grpc::{ExecuteRequest, GetKernelRequest, KernelClient, ListKernelsRequest, Mode};
use tower_kernels::service::{Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

use crate::grpc::server::Running;

const MANY: usize = 10_000;

/// Adds its number to what it is given. Every tenth is a ring kernel.
struct Add(u64);

impl Kernel for Add {
    type Input = u64;
    type Output = u64;

    fn info(&self) -> KernelInfo {
        let id = format!("domain{}/add-{:05}", self.0 % 7, self.0);
        let info = KernelInfo::new(id, "1.0.0", "Adds its number.");
        if self.0 % 10 == 9 { info.ring() } else { info }
    }

    fn validate(&self, _: &u64) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &u64) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &u64, _: &RunContext<'_>) -> Result<u64, KernelError> {
        Ok(input.wrapping_add(self.0))
    }
}

async fn walk(server: &Running, first: ListKernelsRequest) -> (Vec<String>, usize) {
    let mut client = KernelClient::new(server.channel().await);
    let (mut ids, mut request) = (Vec::new(), first);
    loop {
        let page = client.list_kernels(request.clone()).await.unwrap().into_inner();
        assert!(page.kernels.len() <= request.page_size.max(100) as usize);
        ids.extend(page.kernels.into_iter().map(|kernel| kernel.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return (ids, page.total_size as usize);
        }
    }
}

#[tokio::test]
async fn of_ten_thousand_kernels_each_is_listed_described_and_run() {
    let registry = KernelRegistry::new();
    (0..MANY as u64).for_each(|number| registry.register(Add(number)).unwrap());
    let server = Running::of(Arc::new(registry)).await;
    for page_size in [0, 333, 1000] {
        let (ids, total) = walk(&server, ListKernelsRequest { page_size, ..Default::default() }).await;
        assert_eq!((ids.len(), total), (MANY, MANY));
        assert!(ids.is_sorted() && ids.iter().collect::<BTreeSet<_>>().len() == MANY);
    }
    let filter = ListKernelsRequest { domain: "domain3".into(), mode: Mode::Ring.into(), ..Default::default() };
    let (ids, total) = walk(&server, filter).await;
    let expected = (0..MANY).filter(|number| number % 70 == 59).count();
    assert_eq!((ids.len(), total), (expected, expected));

    let kernel_id = "domain2/add-09998".to_owned();
    let kernel = server.client().await.get_kernel(GetKernelRequest { kernel_id: kernel_id.clone() }).await;
    assert_eq!(kernel.unwrap().into_inner().domain, "domain2");
    assert_eq!(server.execute(&kernel_id, "1").await.unwrap(), "9999");
}

#[tokio::test]
async fn an_empty_registry_is_served() {
    let server = Running::of(Arc::new(KernelRegistry::new())).await;
    assert_eq!(walk(&server, ListKernelsRequest::default()).await, (Vec::new(), 0));
    let mut client = server.client().await;
    let missing = client.get_kernel(GetKernelRequest { kernel_id: "a/b".into() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let request = ExecuteRequest { kernel_id: "a/b".into(), input: "1".into() };
    assert_eq!(client.execute(request).await.unwrap_err().code(), Code::NotFound);
}
