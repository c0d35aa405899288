//! Traits through which layers read any request and response.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::BackendChoice;
use crate::error::ErrorKind;

/// Describes a request to the layers: its operation, deadline, priority, tenant and trace.
///
/// [`KernelRequest`](crate::service::KernelRequest) implements it with its fields, and [`http::Request`] with its
/// extensions. Every method has a default, so for a request type of your own an empty `impl` is enough:
///
/// ```
/// struct Query(String);
/// impl tower_kernels::request::RequestContext for Query {}
/// ```
#[diagnostic::on_unimplemented(
    message = "the layers of tower-kernels know nothing of requests of type `{Self}`",
    label = "`RequestContext` is not implemented for `{Self}`",
    note = "for a type of your own an empty `impl` block of the trait is enough: every method has a default",
    note = "for a type of another crate, wrap it in a `tower_kernels::middleware::classify::WithContext` outside of the layers",
    note = "see the page `tower_kernels::compile_errors`"
)]
pub trait RequestContext {
    /// Name of the operation: used as span name, metric label, and key of state that a layer keeps for each operation.
    /// Examples: a kernel id, `GET /users/{id}`, `helloworld.Greeter/SayHello`. Use few distinct names, because layers
    /// keep at most some hundred: an HTTP path is not suitable.
    ///
    /// The name is borrowed from the request and called for several times. Build composed names once and share them
    /// between requests.
    fn operation(&self) -> &str {
        "request"
    }

    /// Deadline of the request.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Sets the deadline for inner services.
    fn set_deadline(&mut self, deadline: Instant) {
        let _ = deadline;
    }

    /// Scheduling priority of the request.
    fn priority(&self) -> Priority {
        Priority::Normal
    }

    /// Tenant that the request belongs to.
    fn tenant(&self) -> Option<&Arc<str>> {
        None
    }

    /// Trace context of the request.
    fn trace_context(&self) -> Option<&TraceContext> {
        None
    }

    /// Whether the deadline is the server's own timeout. When a deadline chosen by the client passes, that does not
    /// indicate a failure of the service.
    fn deadline_is_server_timeout(&self) -> bool {
        false
    }

    /// Fair-queueing share of the request, if one has been assigned. Otherwise the tenant's name is used as the key.
    fn share(&self) -> Option<Share> {
        None
    }

    /// Expected execution time of the request without queueing, if it has been estimated.
    fn expected_time(&self) -> Option<Duration> {
        None
    }

    /// Sets the expected execution time for inner layers.
    fn set_expected_time(&mut self, time: Duration) {
        let _ = time;
    }

    /// Size of the payload in bytes, if it is known without encoding.
    fn payload_bytes(&self) -> Option<u64> {
        None
    }

    /// Versions of stored operands that the request refers to, such as `payments@7, prices@3`, for its span.
    fn operand_names(&self) -> Option<String> {
        None
    }
}

/// Fair-queueing share of a request: requests with the same key share a queue, and waiting queues are served in
/// proportion to their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    key: u32,
    weight: NonZeroU16,
}

impl Share {
    /// The share of all requests without a share of their own, with weight 1.
    pub const COMMON: Self = Self { key: 0, weight: NonZeroU16::MIN };

    /// Number of bits of a key that are used.
    pub const KEY_BITS: u32 = 24;

    /// Maximum weight.
    pub const MAX_WEIGHT: u16 = i16::MAX as u16;

    /// Creates a share with this weight, limited to [`MAX_WEIGHT`](Self::MAX_WEIGHT). Key 0 is that of
    /// [`COMMON`](Self::COMMON).
    pub const fn new(key: u32, weight: NonZeroU16) -> Self {
        const MAX: NonZeroU16 = NonZeroU16::new(Share::MAX_WEIGHT).expect("not zero");
        let weight = if weight.get() > Self::MAX_WEIGHT { MAX } else { weight };
        Self { key: key & ((1 << Self::KEY_BITS) - 1), weight }
    }

    /// Key that identifies the share.
    pub const fn key(self) -> u32 {
        self.key
    }

    /// Weight of the share, relative to a share of weight 1.
    pub const fn weight(self) -> NonZeroU16 {
        self.weight
    }

    /// Whether it is the share of all requests without one of their own.
    pub const fn is_common(self) -> bool {
        self.key == Self::COMMON.key
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::COMMON
    }
}

/// Scheduling data of a request, packed into six bytes because every layer moves it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scheduling {
    /// Weight of the share, zero if none has been assigned. The highest bit: whether the deadline is the server's
    /// timeout.
    weight: u16,
    /// Key of the share; zero for the common one.
    key: [u8; 3],
    /// Expected execution time on a logarithmic scale with eight steps per octave from 1 µs, exact to 5 %. Zero if not
    /// known.
    expected: u8,
}

const SERVER_TIMEOUT: u16 = 1 << 15;
const STEPS_PER_OCTAVE: f64 = 8.0;
/// 2^(1/16).
const HALF_A_STEP: f64 = 1.044_273_782_427_413_8;

impl Scheduling {
    #[inline]
    pub(crate) fn share(self) -> Option<Share> {
        let weight = NonZeroU16::new(self.weight & !SERVER_TIMEOUT)?;
        let [first, second, third] = self.key;
        Some(Share { key: u32::from_le_bytes([first, second, third, 0]), weight })
    }

    #[inline]
    pub(crate) fn set_share(&mut self, share: Share) {
        let [first, second, third, _] = share.key.to_le_bytes();
        self.key = [first, second, third];
        self.weight = self.weight & SERVER_TIMEOUT | share.weight.get();
    }

    #[inline]
    pub(crate) fn is_server_timeout(self) -> bool {
        self.weight & SERVER_TIMEOUT != 0
    }

    #[inline]
    pub(crate) fn set_server_timeout(&mut self, is: bool) {
        self.weight = if is { self.weight | SERVER_TIMEOUT } else { self.weight & !SERVER_TIMEOUT };
    }

    #[inline]
    pub(crate) fn expected(self) -> Option<Duration> {
        let steps = self.expected.checked_sub(1)?;
        Some(Duration::from_secs_f64(1e-6 * (f64::from(steps) / STEPS_PER_OCTAVE).exp2()))
    }

    #[inline]
    pub(crate) fn set_expected(&mut self, time: Duration) {
        let micros = (time.as_secs_f64() * 1e6).max(1.0);
        // The binary exponent of the eighth power is the logarithm in eighths, rounded down.
        let power = (micros * HALF_A_STEP).powi(8);
        let steps = (power.to_bits() >> (f64::MANTISSA_DIGITS - 1)) - (f64::MAX_EXP as u64 - 1);
        self.expected = 1 + steps.min(254) as u8;
    }
}

/// Describes a response to the layers: its execution, payload size and failure.
#[diagnostic::on_unimplemented(
    message = "the layers of tower-kernels know nothing of responses of type `{Self}`",
    label = "`ResponseContext` is not implemented for `{Self}`",
    note = "for a type of your own an empty `impl` block of the trait is enough: every method has a default",
    note = "for a type of another crate, put `.map_response(tower_kernels::middleware::classify::WithContext::new)` directly \
            around the service that returns it",
    note = "see the page `tower_kernels::compile_errors`"
)]
pub trait ResponseContext {
    /// How the request was executed.
    fn execution(&self) -> Option<&Execution> {
        None
    }

    /// Size of the payload in bytes, if it is known without encoding.
    fn payload_bytes(&self) -> Option<u64> {
        None
    }

    /// Error kind of a response that is itself a failure, such as an HTTP response of status 503.
    fn failure(&self) -> Option<ErrorKind> {
        None
    }
}

/// How a request was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execution {
    /// Backend that executed it: `"CPU"` or `"CUDA"`, or [`CACHE`](Self::CACHE).
    pub backend: &'static str,
    /// Device index, if the backend has several devices.
    pub device: Option<u16>,
    /// Time from the decoded input to the start of the execution.
    pub queued: Duration,
    /// Execution time: the kernel, with its copies to and from a device. Decoding and encoding are not part of it.
    pub executed: Duration,
    /// Prediction of `executed`, from the kernel's cost model and from what earlier runs took.
    pub estimated: Duration,
    /// Number of requests that shared the launch.
    pub batch_size: u32,
    /// What few executions have.
    details: Option<Box<Details>>,
}

/// The part of an [`Execution`] that few have, in a box because every layer moves the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details {
    device_times: Option<DeviceTimes>,
    codec_times: Option<CodecTimes>,
    operands: Vec<OperandUse>,
    choice: Option<BackendChoice>,
}

/// The use of an operand by a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperandUse {
    /// A number that no other version of any operand has in this process.
    pub id: u64,
    /// The name of the operand.
    pub name: Arc<str>,
    /// The version.
    pub version: u64,
    /// Whether the device had all arrays of the operand that the run used, before the run. The CPU always has them.
    pub resident: bool,
}

impl OperandUse {
    /// Creates the use of a version of an operand.
    pub fn new(id: u64, name: Arc<str>, version: u64, resident: bool) -> Self {
        Self { id, name, version, resident }
    }
}

impl fmt::Display for OperandUse {
    /// Writes the reference, such as `payments@7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Times of a request on its device, measured by the device's clock.
///
/// Each is a sum of intervals on the device. Host work between them is not counted, so together they do not exceed
/// [`executed`](Execution::executed).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceTimes {
    /// Host-to-device copies, including waits between the chunks of an array.
    pub upload: Duration,
    /// Kernel launches, and fills and copies within the device.
    pub kernel: Duration,
    /// Device-to-host copies, including waits between the chunks of an array.
    pub download: Duration,
    /// Lower bound of `kernel` (roofline): the time for the bytes and operations of the kernel's
    /// [cost](crate::service::Cost) at the device's peak. `None` if the peak is not known.
    pub bound: Option<Duration>,
}

impl DeviceTimes {
    /// Fraction of the device's peak that the kernel reached: `bound` over `kernel`. `None` if the bound is not known
    /// or nothing was launched.
    ///
    /// Above 1 the cost estimate is too high, or the data was in a cache.
    pub fn roofline(&self) -> Option<f64> {
        let bound = self.bound.filter(|_| !self.kernel.is_zero())?;
        Some(bound.as_secs_f64() / self.kernel.as_secs_f64())
    }
}

/// Times that a large input and a large output of a request spent with the threads that decode and encode them.
///
/// Each includes the wait for such a thread, and is zero for what was small enough to be done on the caller's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CodecTimes {
    /// Decoding and validation of the input, before the request waits for a backend.
    pub decoding: Duration,
    /// Encoding of the output, after the backend was released.
    pub encoding: Duration,
}

impl Execution {
    /// Backend of a response that came from a cache, without an execution.
    pub const CACHE: &str = "cache";

    /// Creates the execution of one request on `backend`, with all times zero.
    #[inline]
    pub fn new(backend: &'static str) -> Self {
        Self {
            backend,
            device: None,
            queued: Duration::ZERO,
            executed: Duration::ZERO,
            estimated: Duration::ZERO,
            batch_size: 1,
            details: None,
        }
    }

    /// Returns the times measured by the device. Only a sample of requests has them.
    #[inline]
    pub fn device_times(&self) -> Option<&DeviceTimes> {
        self.details.as_ref()?.device_times.as_ref()
    }

    /// Sets the times measured by the device.
    pub fn set_device_times(&mut self, times: DeviceTimes) {
        self.details.get_or_insert_default().device_times = Some(times);
    }

    /// Returns the times of decoding and encoding; `None` if both were done on the caller's thread.
    pub fn codec_times(&self) -> Option<&CodecTimes> {
        self.details.as_ref()?.codec_times.as_ref()
    }

    /// Sets the times of decoding and encoding.
    pub fn set_codec_times(&mut self, times: CodecTimes) {
        self.details.get_or_insert_default().codec_times = Some(times);
    }

    /// Returns why the request ran on this backend; `None` if no other could have run it.
    pub fn choice(&self) -> Option<&BackendChoice> {
        self.details.as_ref()?.choice.as_ref()
    }

    /// Sets why the request ran on this backend.
    pub fn set_choice(&mut self, choice: BackendChoice) {
        self.details.get_or_insert_default().choice = Some(choice);
    }

    /// Returns the operands that the request refers to.
    pub fn operands(&self) -> &[OperandUse] {
        self.details.as_ref().map_or(&[], |details| &details.operands)
    }

    /// Sets the operands that the request refers to.
    pub fn set_operands(&mut self, operands: Vec<OperandUse>) {
        // Without a box for an execution that has none.
        if !operands.is_empty() || self.details.is_some() {
            self.details.get_or_insert_default().operands = operands;
        }
    }
}

/// Scheduling priority of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "service",
    derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema),
    serde(rename_all = "lowercase")
)]
pub enum Priority {
    /// Shed first.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Shed last.
    High,
}

impl Priority {
    /// `"low"`, `"normal"` or `"high"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Error of parsing a [`Priority`]: not one of `low`, `normal`, `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPriority;

impl fmt::Display for UnknownPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a priority is one of: low, normal, high")
    }
}

impl std::error::Error for UnknownPriority {}

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            _ => Err(UnknownPriority),
        }
    }
}

/// A position in a distributed trace, as [W3C Trace Context](https://www.w3.org/TR/trace-context/) writes it.
///
/// ```
/// use tower_kernels::request::TraceContext;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = header.parse().unwrap();
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), header);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Creates a context with the span `parent_id` in the trace `trace_id`. Returns `None` if either is zero, which the
    /// standard forbids.
    pub fn new(trace_id: u128, parent_id: u64, sampled: bool) -> Option<Self> {
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, flags: u8::from(sampled), state: None })
    }

    /// Sets the `tracestate` header, which is passed on unchanged.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<Arc<str>>) -> Self {
        self.state = Some(state.into());
        self
    }

    /// Id of the trace.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// Id of the caller's span.
    pub fn parent_id(&self) -> u64 {
        self.parent_id
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The `tracestate` header.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

impl fmt::Display for TraceContext {
    /// The `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// Error of parsing a `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTraceParent;

impl fmt::Display for InvalidTraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a traceparent has the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
    }
}

impl std::error::Error for InvalidTraceParent {}

impl FromStr for TraceContext {
    type Err = InvalidTraceParent;

    fn from_str(header: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` alone would accept a sign and upper case, which the standard forbids.
        let hex = |range: std::ops::Range<usize>| {
            let digits = header.get(range).ok_or(InvalidTraceParent)?;
            if digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                u128::from_str_radix(digits, 16).map_err(|_| InvalidTraceParent)
            } else {
                Err(InvalidTraceParent)
            }
        };
        let version = hex(0..2)?;
        let bytes = header.as_bytes();
        // Later versions may append fields after another dash; version ff is forbidden.
        let length_fits = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        if !length_fits || !dashes {
            return Err(InvalidTraceParent);
        }
        let trace_id = hex(3..35)?;
        let parent_id = u64::try_from(hex(36..52)?).map_err(|_| InvalidTraceParent)?;
        let flags = u8::try_from(hex(53..55)?).map_err(|_| InvalidTraceParent)?;
        let mut context = Self::new(trace_id, parent_id, false).ok_or(InvalidTraceParent)?;
        context.flags = flags;
        Ok(context)
    }
}

#[cfg(test)]
mod scheduling_tests {
    use super::*;

    #[test]
    fn packed_values_are_returned_as_they_were_set() {
        let mut scheduling = Scheduling::default();
        assert_eq!((scheduling.share(), scheduling.expected(), scheduling.is_server_timeout()), (None, None, false));
        let weight = |weight| NonZeroU16::new(weight).unwrap();
        for share in [Share::COMMON, Share::new(0xabcdef, weight(7)), Share::new(1, weight(u16::MAX))] {
            scheduling.set_server_timeout(true);
            scheduling.set_share(share);
            assert_eq!((scheduling.share(), scheduling.is_server_timeout()), (Some(share), true));
            scheduling.set_server_timeout(false);
            assert_eq!((scheduling.share(), scheduling.is_server_timeout()), (Some(share), false));
        }
        for micros in [1.0, 17.0, 54_000.0, 3.6e9] {
            let time = Duration::from_secs_f64(micros / 1e6);
            scheduling.set_expected(time);
            let off = scheduling.expected().unwrap().as_secs_f64() / time.as_secs_f64() - 1.0;
            assert!(off.abs() < 0.05, "{micros} µs are {:?}", scheduling.expected());
        }
        scheduling.set_expected(Duration::ZERO);
        assert_eq!(scheduling.expected(), Some(Duration::from_micros(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::TraceContext;

    #[test]
    fn traceparent_is_read_as_the_standard_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(good.parse::<TraceContext>().unwrap().trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-will-be-like";
        assert!(later.parse::<TraceContext>().is_ok());
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473+-00f067aa0ba902b7-01",
            "00-ééééééééééééééééééééééééééééé-00f067aa0ba902b7-01",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad:?} was accepted");
        }
    }
}
