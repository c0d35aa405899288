//! TLS on the REST and gRPC ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use sha2::Digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version,
};
use tonic::Code;
use tonic::transport::Endpoint;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use crate::size;
use crate::support::process::{PATIENCE, SAXPY, Server, Text, program, run, signal, stderr, wait};

/// An authority, and the certificates that it issues.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each of another name: by the name a client's certificate is found to be another authority's.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("the tests' authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// For 127.0.0.1 and localhost.
    pub(crate) fn server(&self) -> Pair {
        self.issue(|params| {
            let names = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
            params.subject_alt_names = names.subject_alt_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    fn client(&self, common_name: &str) -> Pair {
        self.issue(|params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }
}

/// A folder of files, gone with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-kernels-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// The flags of a server that presents this certificate.
    pub(crate) fn flags(&self, pair: &Pair) -> Vec<String> {
        let (cert, key) = (self.write("tls.crt", &pair.cert), self.write("tls.key", &pair.key));
        vec![format!("--tls-cert={}", cert.display()), format!("--tls-key={}", key.display())]
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn start(flags: &[String], more: &[&str]) -> Server {
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Server::start(&flags)
}

static BOTH: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// What a client of TLS is told to do.
pub(crate) struct Client<'a> {
    authority: &'a str,
    pair: Option<&'a Pair>,
    alpn: &'a [&'a str],
    versions: &'a [&'static SupportedProtocolVersion],
}

impl<'a> Client<'a> {
    pub(crate) fn new(authority: &'a Authority) -> Self {
        Self { authority: &authority.pem, pair: None, alpn: &["http/1.1"], versions: BOTH }
    }

    fn with(self, pair: &'a Pair) -> Self {
        Self { pair: Some(pair), ..self }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(self.versions).unwrap().with_root_certificates(roots);
        let mut config = match self.pair {
            None => builder.with_no_client_auth(),
            Some(Pair { cert, key }) => {
                let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub(crate) async fn connect(&self, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        connect(&self.config(), to).await
    }

    /// One request over a connection of its own.
    async fn ask(&self, to: SocketAddr, request: Request<Full<Bytes>>) -> Result<(u16, String), String> {
        let stream = self.connect(to).await.map_err(|error| error.to_string())?;
        ask(stream, request).await
    }

    async fn channel(&self, to: SocketAddr) -> Result<tonic::transport::Channel, String> {
        let config = self.config();
        let connector = tower::service_fn(move |_| {
            let config = Arc::clone(&config);
            async move { connect(&config, to).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))
    }
}

async fn connect(config: &Arc<ClientConfig>, to: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await?;
    let connected = TlsConnector::from(Arc::clone(config)).connect("localhost".try_into().unwrap(), tcp);
    tokio::time::timeout(PATIENCE, connected).await.expect("the handshake does not end")
}

/// By the version of HTTP that ALPN has led to.
async fn ask<T>(stream: TlsStream<T>, request: Request<Full<Bytes>>) -> Result<(u16, String), String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let response = async {
        let said = |error: hyper::Error| format!("{error:?}");
        let response = if http2 {
            let executor = TokioExecutor::new();
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.map_err(said)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(said)?
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(said)?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(said)?
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(said)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(PATIENCE, response).await.expect("there is no response")
}

fn get(path: &str) -> Request<Full<Bytes>> {
    let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
    request.body(Full::default()).unwrap()
}

fn post(tenant: Option<&str>) -> Request<Full<Bytes>> {
    let mut document = serde_json::json!({"kernel_id": "linalg/saxpy"});
    document["input"] = serde_json::from_str(SAXPY).unwrap();
    if let Some(tenant) = tenant {
        document["metadata"] = serde_json::json!({"tenant": tenant});
    }
    let request = Request::post("https://localhost/execute").header("host", "localhost");
    request.header("content-type", "application/json").body(Full::from(document.to_string())).unwrap()
}

fn saxpy() -> ExecuteRequest {
    ExecuteRequest { kernel_id: "linalg/saxpy".to_owned(), input: SAXPY.to_owned() }
}

/// The value of a line on the page of metrics.
async fn metric(client: &Client<'_>, server: &Server, line: &str) -> f64 {
    let (status, page) = client.ask(server.rest, get("/metrics")).await.unwrap();
    assert_eq!(status, 200, "{page}");
    let value = page.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in {page}")).parse().unwrap()
}

/// Asks until `holds` is true of what comes.
async fn until<T: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let now = ask().await;
        if holds(&now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "it stays {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn rest_and_grpc_speak_both_versions_of_tls_and_of_http() {
    let (authority, folder) = (Authority::new(), Folder::new("both"));
    let any = ["--rest-listen=0.0.0.0:0", "--grpc-listen=0.0.0.0:0"];
    let flags = folder.flags(&authority.server());
    let flags: Vec<_> = any.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let server = Server::spawn(&mut program(["serve"]), &flags);
    let here = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (rest, grpc) = (here(server.rest.port()), here(server.grpc.port()));
    for (versions, expected) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        for alpn in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
            let client = Client { versions: &[versions], alpn, ..Client::new(&authority) };
            let stream = client.connect(rest).await.unwrap();
            let spoken = stream.get_ref().1;
            assert_eq!(spoken.protocol_version(), Some(expected));
            assert_eq!(spoken.alpn_protocol().map(<[u8]>::to_vec), alpn.first().map(|name| name.as_bytes().to_vec()));
            let (status, output) = ask(stream, post(None)).await.unwrap();
            assert!(status == 200 && output.contains("12.0"), "{status} {output}");
        }
        let client = Client { versions: &[versions], alpn: &["h2"], ..Client::new(&authority) };
        let mut kernels = KernelClient::new(client.channel(grpc).await.unwrap());
        assert!(kernels.execute(saxpy()).await.unwrap().get_ref().output.contains("12.0"));
    }
    let greeting = server.stdout.until("Try it");
    assert!(greeting.contains(&format!("https://0.0.0.0:{}", rest.port())), "{greeting}");
    assert!(greeting.contains("curl -s --cacert ca.crt https://127.0.0.1:"), "{greeting}");
    assert!(!server.stderr.now().contains("where others can reach it"), "{}", server.stderr.now());
    // rcgen's certificates are valid for two thousand years.
    let client = Client::new(&authority);
    let (_, page) = client.ask(rest, get("/metrics")).await.unwrap();
    let left = page.lines().find_map(|line| line.strip_prefix("kernel_tls_certificate_expiry_seconds ")).unwrap();
    assert!(left.parse::<f64>().unwrap() > 1e9, "{left}");
}

#[tokio::test]
async fn plain_http_on_a_tls_port_and_tls_on_a_plain_port_are_closed() {
    let (authority, folder) = (Authority::new(), Folder::new("plain"));
    let server = start(&folder.flags(&authority.server()), &[]);
    // HTTP/1.1, HTTP/2, neither, and what begins as TLS does and goes on otherwise.
    for (sent, said) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], "HTTP/1.1 400 Bad Request\r\n"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "HTTP/1.1 400 Bad Request\r\n"),
        (b"\0\0\0\0", ""),
        (b"\x16\x03\x01\x00\x05hello", ""),
    ] {
        for to in [server.rest, server.grpc] {
            let mut tcp = TcpStream::connect(to).await.unwrap();
            tcp.write_all(sent).await.unwrap();
            let mut read = Vec::new();
            // To its end, and no reset.
            tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut read)).await.expect("it is not closed").unwrap();
            assert!(String::from_utf8_lossy(&read).starts_with(said), "{sent:?}: {read:?}");
        }
    }
    let client = Client::new(&authority);
    assert_eq!(metric(&client, &server, r#"kernel_tls_handshake_failures_total{reason="not_tls"}"#).await, 6.0);
    assert_eq!(client.ask(server.rest, post(None)).await.unwrap().0, 200);

    let plain = Server::start(&[]);
    for to in [plain.rest, plain.grpc] {
        client.connect(to).await.unwrap_err();
    }
    assert_eq!(plain.get("/health/live").0, 200);
}

/// Half-open handshakes count as connections, and end in time, whether nothing comes, a part, or a byte now and then.
#[tokio::test]
async fn handshakes_that_do_not_end_are_cut_off_and_hold_a_place_no_longer() {
    let (authority, folder) = (Authority::new(), Folder::new("half"));
    let count = size(24, 1000);
    let most = format!("--connections-max={count}");
    let server = start(
        &folder.flags(&authority.server()),
        &["--connections-head-timeout=700ms", "--connections-health-reserve=0", &most],
    );
    let mut held = Vec::new();
    for index in 0..count {
        let mut tcp = TcpStream::connect(server.rest).await.unwrap();
        match index % 3 {
            0 => {}
            1 => tcp.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap(),
            _ => tcp.write_all(b"\x16").await.unwrap(),
        }
        held.push(tcp);
    }
    let trickled = tokio::spawn(async move {
        // Until the server closes, which resets what is written later.
        loop {
            let mut alive = false;
            for tcp in held.iter_mut().skip(2).step_by(3) {
                alive |= tcp.write_all(b"\x03").await.is_ok();
            }
            if !alive {
                return held;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let client = Client::new(&authority);
    assert_eq!(client.ask(server.rest, post(None)).await.unwrap().0, 200);
    let line = r#"kernel_tls_handshake_failures_total{reason="timeout"}"#;
    // Those that trickle may turn out to be no TLS first.
    until(async || metric(&client, &server, line).await, |&closed| closed >= f64::from(count) / 2.0).await;
    tokio::time::timeout(PATIENCE, trickled).await.expect("they are not closed").unwrap();
}

/// A half-open handshake is nothing in flight: it neither delays the end nor counts as cut off.
#[tokio::test]
async fn a_drain_does_not_wait_for_handshakes() {
    let (authority, folder) = (Authority::new(), Folder::new("drain"));
    let flags = ["--connections-head-timeout=1h", "--drain-limit=1h", "--drain-notice=0s"];
    let mut server = start(&folder.flags(&authority.server()), &flags);
    let mut half = TcpStream::connect(server.rest).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00").await.unwrap();
    // It has been accepted once a connection that came later is.
    assert_eq!(Client::new(&authority).ask(server.rest, get("/health/live")).await.unwrap().0, 200);
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
}

/// Calls of alice and bob, each with one a day of their own; others have as many as they like.
fn quotas(folder: &Folder) -> String {
    let quota = "per_second = 1\nburst = 1\n";
    let toml = format!("[rate_limit.tenants.alice]\n{quota}[rate_limit.tenants.bob]\n{quota}");
    format!("--config={}", folder.write("quotas.toml", &toml).display())
}

fn client_ca(folder: &Folder, authority: &Authority) -> String {
    format!("--tls-client-ca={}", folder.write("clients.crt", &authority.pem).display())
}

/// How many of so many calls at once are let through; a tenant with a quota gets one of a second's worth or two.
async fn let_through(client: &Client<'_>, server: &Server, request: impl Fn() -> Request<Full<Bytes>>) -> usize {
    let mut through = 0;
    for _ in 0..20 {
        match client.ask(server.rest, request()).await.unwrap().0 {
            200 => through += 1,
            429 => {}
            status => panic!("{status}"),
        }
    }
    through
}

#[tokio::test]
async fn a_client_certificate_is_the_tenant_whatever_the_client_says() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let folder = Folder::new("tenant");
    let key = "a-key-of-carols-that-is-long-enough";
    let hash: String = sha2::Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = format!("[[api_keys]]\ntenant = \"carol\"\nkey_sha256 = \"{hash}\"\n");
    let keys = format!("--auth-api-keys-file={}", folder.write("keys.toml", &keys).display());
    let (ca, quotas) = (client_ca(&folder, &clients), quotas(&folder));
    let server = start(&folder.flags(&servers.server()), &[&ca, &quotas, &keys]);
    assert!(server.stdout.now().contains("API keys and client certificates"), "{}", server.stdout.now());
    let (alice, carol) = (clients.client("alice"), clients.client("carol"));

    // Who says in the document, or in a header, to be somebody else is not.
    let as_alice = Client::new(&servers).with(&alice);
    let claims_to_be_carol = || {
        let mut request = post(Some("carol"));
        request.headers_mut().insert("x-api-key", key.try_into().unwrap());
        request
    };
    let through = let_through(&as_alice, &server, claims_to_be_carol).await;
    assert!((1..20).contains(&through), "{through} of 20 calls");
    let as_carol = Client::new(&servers).with(&carol);
    assert_eq!(let_through(&as_carol, &server, || post(Some("alice"))).await, 20);
    let mut grpc = KernelClient::new(Client { alpn: &["h2"], ..as_carol }.channel(server.grpc).await.unwrap());
    grpc.execute(saxpy()).await.unwrap();

    // Without a certificate a key does it; without either only probes are answered.
    let mut with_key = post(Some("alice"));
    with_key.headers_mut().insert("x-api-key", key.try_into().unwrap());
    assert_eq!(Client::new(&servers).ask(server.rest, with_key).await.unwrap().0, 200);
    let nobody = Client::new(&servers);
    let (status, body) = nobody.ask(server.rest, post(Some("carol"))).await.unwrap();
    assert!(status == 401 && body.contains("unauthenticated"), "{status} {body}");
    assert_eq!(nobody.ask(server.rest, get("/health/ready")).await.unwrap().0, 200);
    let channel = Client { alpn: &["h2"], ..Client::new(&servers) }.channel(server.grpc).await.unwrap();
    assert_eq!(KernelClient::new(channel).execute(saxpy()).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn client_certificates_that_are_not_accepted_end_the_handshake_with_an_alert() {
    let (servers, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let folder = Folder::new("refused");
    let server = start(&folder.flags(&servers.server()), &[&client_ca(&folder, &clients), "--auth-open-metrics"]);
    let named = |name: &str, change: &dyn Fn(&mut CertificateParams)| {
        clients.issue(|params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(params);
        })
    };
    let rejected = [
        ("UnknownCA", others.client("alice")),
        ("CertificateExpired", named("alice", &|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))),
        // Not valid yet, and for servers alone.
        ("CertificateExpired", named("alice", &|params| params.not_before = rcgen::date_time_ymd(3000, 1, 1))),
        ("", named("alice", &|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("AccessDenied", named("", &|_| ())),
        ("AccessDenied", named("al ice", &|_| ())),
        ("AccessDenied", named("al\nice", &|_| ())),
        ("AccessDenied", named("älice", &|_| ())),
        ("AccessDenied", named(&"a".repeat(129), &|_| ())),
        (
            "AccessDenied",
            clients.issue(|params| params.subject_alt_names = vec![SanType::DnsName("a".try_into().unwrap())]),
        ),
    ];
    for (alert, pair) in &rejected {
        for versions in [&version::TLS12, &version::TLS13] {
            // In TLS 1.3 the client is done before it is refused, and is told when it reads.
            let client = Client { versions: &[versions], ..Client::new(&servers).with(pair) };
            let error = client.ask(server.rest, post(None)).await.unwrap_err();
            assert!(error.contains("AlertReceived") || error.contains("received fatal alert"), "{alert}: {error}");
            assert!(error.contains(alert), "{alert}: {error}");
        }
    }
    let nobody = Client::new(&servers);
    let line = r#"kernel_tls_handshake_failures_total{reason="client_certificate"}"#;
    assert_eq!(metric(&nobody, &server, line).await, 2.0 * rejected.len() as f64);
    let longest = named(&"a".repeat(128), &|_| ());
    assert_eq!(Client::new(&servers).with(&longest).ask(server.rest, post(None)).await.unwrap().0, 200);
}

#[tokio::test]
async fn the_tenant_can_be_in_an_alternative_name_and_then_only_there() {
    let (servers, clients) = (Authority::new(), Authority::new());
    for (field, right, wrong) in [
        ("dns", SanType::DnsName("alice".try_into().unwrap()), SanType::URI("alice".try_into().unwrap())),
        ("uri", SanType::URI("alice".try_into().unwrap()), SanType::DnsName("alice".try_into().unwrap())),
    ] {
        let folder = Folder::new(field);
        let flags = [client_ca(&folder, &clients), quotas(&folder), format!("--tls-client-tenant={field}")];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let server = start(&folder.flags(&servers.server()), &flags);
        let pair = |names: &[&SanType]| {
            clients.issue(|params| {
                params.distinguished_name.push(DnType::CommonName, "carol");
                params.subject_alt_names = names.iter().map(|&name| name.clone()).collect();
            })
        };
        let alice = pair(&[&wrong, &right]);
        let through = let_through(&Client::new(&servers).with(&alice), &server, || post(None)).await;
        assert!((1..20).contains(&through), "{field}: {through} of 20 calls");
        for names in [&[][..], &[&wrong], &[&right, &right]] {
            let pair = pair(names);
            Client::new(&servers).with(&pair).ask(server.rest, post(None)).await.unwrap_err();
        }
    }
}

/// With client certificates each connection has its own checked, and no session brings back an earlier one.
#[tokio::test]
async fn sessions_of_clients_with_certificates_are_not_resumed() {
    let (servers, clients, folder) = (Authority::new(), Authority::new(), Folder::new("resume"));
    let server = start(&folder.flags(&servers.server()), &[&client_ca(&folder, &clients)]);
    let alice = clients.client("alice");
    for versions in [&version::TLS12, &version::TLS13] {
        let config = Client { versions: &[versions], ..Client::new(&servers).with(&alice) }.config();
        for _ in 0..3 {
            let stream = connect(&config, server.rest).await.unwrap();
            assert_ne!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            assert_eq!(ask(stream, post(None)).await.unwrap().0, 200);
        }
    }
}

/// The serial number is another with every certificate.
fn presented(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec()
}

/// Replaces a file as careful programs do.
fn rename_over(path: &Path, contents: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, contents).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_and_no_request_fails() {
    let (authority, folder) = (Arc::new(Authority::new()), Folder::new("rotate"));
    let server = start(&folder.flags(&authority.server()), &["--tls-reload-interval=20ms"]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = Vec::new();
    for alpn in [&["h2"][..], &["http/1.1"]].into_iter().cycle().take(size(4, 32)) {
        let (authority, stop, done) = (Arc::clone(&authority), Arc::clone(&stop), Arc::clone(&done));
        let to = server.rest;
        load.push(tokio::spawn(async move {
            let client = Client { alpn, ..Client::new(&authority) };
            while !stop.load(Ordering::Relaxed) {
                let (status, output) = client.ask(to, post(None)).await.expect("a request has failed");
                assert_eq!(status, 200, "{output}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // And one connection that stays through all of it.
    let stays = Client { alpn: &["h2"], ..Client::new(&authority) };
    let mut kernels = KernelClient::new(stays.channel(server.grpc).await.unwrap());
    let client = Client::new(&authority);
    let (cert, key) = (folder.0.join("tls.crt"), folder.0.join("tls.key"));
    for round in 0..size(6, 100) {
        let next = authority.server();
        match round % 3 {
            0 => {
                rename_over(&cert, &next.cert);
                rename_over(&key, &next.key);
            }
            // In place, and the other way round: for a moment the two do not belong together.
            1 => {
                std::fs::write(&key, &next.key).unwrap();
                tokio::time::sleep(Duration::from_millis(60)).await;
                std::fs::write(&cert, &next.cert).unwrap();
            }
            // By a link to a folder, as Kubernetes does.
            _ => {
                let version = folder.0.join(format!("version-{round}"));
                std::fs::create_dir(&version).unwrap();
                for (path, contents) in [(&cert, &next.cert), (&key, &next.key)] {
                    let file = version.join(path.file_name().unwrap());
                    std::fs::write(&file, contents).unwrap();
                    let link = path.with_extension("link");
                    std::os::unix::fs::symlink(&file, &link).unwrap();
                    std::fs::rename(link, path).unwrap();
                }
            }
        }
        let (wanted, before) = (der(&next), done.load(Ordering::Relaxed));
        until(async || presented(&client.connect(server.rest).await.unwrap()), |shown| *shown == wanted).await;
        until(async || presented(&client.connect(server.grpc).await.unwrap()), |shown| *shown == wanted).await;
        until(async || done.load(Ordering::Relaxed), |&now| now > before).await;
        kernels.execute(saxpy()).await.unwrap();
        // A file that the next round writes in place is none that this one has linked to.
        for (path, contents) in [(&cert, &next.cert), (&key, &next.key)] {
            rename_over(path, contents);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    let replaced = metric(&client, &server, r#"kernel_tls_reloads_total{outcome="ok"}"#).await;
    assert_eq!(replaced, f64::from(size(6, 100)));
}

#[tokio::test]
async fn what_cannot_be_used_does_not_replace_the_certificate_and_is_logged_once() {
    let (authority, folder) = (Authority::new(), Folder::new("kept"));
    let first = authority.server();
    let server = start(&folder.flags(&first), &["--tls-reload-interval=20ms"]);
    let (cert, key) = (folder.0.join("tls.crt"), folder.0.join("tls.key"));
    let client = Client::new(&authority);
    let failed = r#"kernel_tls_reloads_total{outcome="failed"}"#;
    let expired = authority.issue(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let early = authority.issue(|params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    let other = authority.server();
    for (cert_pem, key_pem, said) in [
        (Some(&other.cert), Some(&first.key), "the private key does not belong to the certificate"),
        (Some(&expired.cert), Some(&expired.key), "expired at 2020-01-01T00:00:00Z"),
        (Some(&early.cert), Some(&early.key), "is not valid before 3000-01-01T00:00:00Z"),
        (Some(&first.cert), Some(&first.cert), "the private key: there is no private key in PEM"),
        (Some(&first.cert[..300].to_owned()), Some(&first.key), "the certificate: "),
        (Some(&String::new()), Some(&first.key), "the certificate: there is no certificate in PEM"),
        (None, Some(&first.key), "tls.crt: No such file"),
    ] {
        match cert_pem {
            Some(pem) => rename_over(&cert, pem),
            None => std::fs::remove_file(&cert).unwrap(),
        }
        match key_pem {
            Some(pem) => rename_over(&key, pem),
            None => std::fs::remove_file(&key).unwrap(),
        }
        server.stderr.until(said);
        // Again and again it is tried, and once it is said.
        let before = metric(&client, &server, failed).await;
        until(async || metric(&client, &server, failed).await, |&now| now > before + 2.0).await;
        assert_eq!(server.stderr.now().matches(said).count(), 1, "{said}");
        assert_eq!(presented(&client.connect(server.rest).await.unwrap()), der(&first), "{said}");
    }
    rename_over(&cert, &other.cert);
    rename_over(&key, &other.key);
    let wanted = der(&other);
    until(async || presented(&client.connect(server.rest).await.unwrap()), |shown| *shown == wanted).await;
}

#[test]
fn a_configuration_without_a_usable_certificate_does_not_start() {
    let (authority, folder) = (Authority::new(), Folder::new("wrong"));
    let (pair, other) = (authority.server(), authority.server());
    let (cert, key) = (folder.write("a.crt", &pair.cert), folder.write("a.key", &pair.key));
    let (other, empty) = (folder.write("b.key", &other.key), folder.write("empty", ""));
    let flag = |name: &str, path: &Path| format!("--tls-{name}={}", path.display());
    for (flags, said) in [
        (vec![flag("cert", &cert)], "tls.cert is set without tls.key"),
        (vec![flag("key", &key)], "tls.key is set without tls.cert"),
        (vec![flag("client-ca", &cert)], "tls.client_ca is set without tls.cert and tls.key"),
        (vec![flag("cert", &cert), flag("key", &other)], "the private key does not belong to the certificate"),
        (vec![flag("cert", &key), flag("key", &key)], "there is no certificate in PEM"),
        (vec![flag("cert", &cert), flag("key", &cert)], "there is no private key in PEM"),
        (
            vec![flag("cert", &cert), flag("key", &key), flag("client-ca", &empty)],
            "the client CA: there is no certificate",
        ),
        (vec![flag("cert", &folder.0.join("none")), flag("key", &key)], "none: No such file"),
    ] {
        let args = ["serve", "--rest-listen=127.0.0.1:0", "--grpc-listen=off"];
        let ended = run(args.into_iter().chain(flags.iter().map(String::as_str)), "");
        assert!(ended.status.code() == Some(2) && stderr(&ended).contains(said), "{said}: {}", stderr(&ended));
    }
}

/// Not hostile, but it needs a server with TLS.
#[tokio::test]
async fn bench_speaks_tls_and_checks_the_certificate() {
    let (authority, other, folder) = (Authority::new(), Authority::new(), Folder::new("bench"));
    let server = start(&folder.flags(&authority.server()), &[]);
    let input = folder.write("saxpy.json", SAXPY).display().to_string();
    let (ours, theirs) = (folder.write("ours.crt", &authority.pem), folder.write("theirs.crt", &other.pem));
    let urls = [("--rest", server.rest, "json"), ("--grpc", server.grpc, "json"), ("--grpc", server.grpc, "tensors")];
    for (flag, address, payload) in urls {
        let bench = |cacert: &Path| {
            let (url, cacert) = (format!("https://{address}"), cacert.display().to_string());
            let fixed = ["bench", "linalg/saxpy", "--input", &input, "-n", "20", "-c", "2", "--warmup", "0s"];
            run(fixed.into_iter().chain([flag, &*url, "--payload", payload, "--cacert", &*cacert]), "")
        };
        let done = bench(&ours);
        assert!(done.status.success(), "{flag} {payload}: {}", stderr(&done));
        let rejected = bench(&theirs);
        assert!(!rejected.status.success() && stderr(&rejected).contains("UnknownIssuer"), "{}", stderr(&rejected));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_speaks_tls_as_the_ports_do() {
    let authority = Authority::new();
    let folder = Folder::new("unix");
    let path = folder.0.join("rest.sock");
    let listen = format!("--rest-listen=unix:{}", path.display());
    let mut command = program(["serve", "--grpc-listen=off", "--cuda-mode=off", &listen]);
    let mut child = command.args(folder.flags(&authority.server())).spawn().unwrap();
    let greeting = Text::of(child.stdout.take().unwrap()).until("Try it:\n  curl");
    assert!(greeting.contains(&format!("unix:{} (TLS)", path.display())), "{greeting}");

    let connector = TlsConnector::from(Client::new(&authority).config());
    let stream = UnixStream::connect(&path).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let request = Request::get("/health/ready").header("host", "localhost").body(Full::default()).unwrap();
    assert_eq!(ask(stream, request).await.unwrap().0, 200);

    let mut plain = UnixStream::connect(&path).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = String::new();
    tokio::time::timeout(PATIENCE, plain.read_to_string(&mut said)).await.expect("it is not closed").unwrap();
    assert!(said.contains("This port speaks TLS"), "{said}");
    signal(child.id(), "KILL");
    wait(&mut child);
}
