//! Checks the size of encoded requests before they are decoded.
//!
//! prost allocates all repeated fields of a message before their number can be checked, and a tensor of two encoded
//! bytes takes a hundred bytes of memory. So the fields are counted first, without allocation. What is decoded after
//! that is bounded.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::codegen::BoxFuture;
use tonic::{Status, Streaming};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::proto::{
    DeleteOperandRequest, ExecuteRequest, ExecuteStreamRequest, ExecuteTensorsRequest, GetKernelRequest,
    GetOperandRequest, ListKernelsRequest, ListOperandsRequest, PutOperandRequest,
};
use super::status::Rejection;
use crate::request::limits::{MAX_NAME_BYTES, MAX_RANK, MAX_REASON_BYTES, MAX_TENSORS};
use crate::servers::offload::{DOCUMENT_BYTES, offload};
use crate::service::{InvalidInput, KernelError};

/// Maximum number of fields in a message and its nested messages: twice what the maximum number of tensors needs if
/// every dimension is a field.
const MAX_FIELDS: usize = 8192;

/// Maximum length of a reference: a name, `@` and the longest version.
const MAX_REFERENCE_BYTES: usize = MAX_NAME_BYTES + 1 + 20;

// A tensor's own field, its name, type and data, and its dimensions.
const _: () = assert!(MAX_TENSORS * (4 + MAX_RANK) <= MAX_FIELDS / 2);

/// An encoded request message.
#[derive(Debug)]
pub(super) struct Encoded<T> {
    bytes: Bytes,
    message: PhantomData<fn() -> T>,
}

impl<T: Incoming> Encoded<T> {
    /// Checks the limits of the message and decodes it. Long texts are decoded on the blocking pool.
    pub(super) async fn decode(self) -> Result<T, Status> {
        let Self { bytes, .. } = self;
        let mut limits = Limits::new();
        T::check(&bytes, &mut limits)?;
        let decoded = offload(limits.text > DOCUMENT_BYTES, move || T::decode(bytes)).await;
        decoded.map_err(|error| Status::internal(error.to_string()))
    }
}

/// Codec that leaves requests encoded, and encodes responses.
#[derive(Debug)]
pub(super) struct RequestCodec<T, U>(PhantomData<fn() -> (T, U)>);

impl<T, U> RequestCodec<T, U> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for RequestCodec<T, U>
where
    T: Incoming,
    U: Message + Default + 'static,
{
    type Encode = U;
    type Decode = Encoded<T>;
    type Encoder = ProstEncoder<U>;
    type Decoder = RequestDecoder<T>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<U, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

#[derive(Debug)]
pub(super) struct RequestDecoder<T>(PhantomData<fn() -> T>);

impl<T> Decoder for RequestDecoder<T> {
    type Item = Encoded<T>;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Encoded<T>>, Status> {
        // A slice of the buffer, not a copy.
        let bytes = message.copy_to_bytes(message.remaining());
        Ok(Some(Encoded { bytes, message: PhantomData }))
    }
}

/// The requests of a stream, decoded one by one.
pub(super) struct Requests<T> {
    encoded: Streaming<Encoded<T>>,
    /// The request that is being decoded.
    current: Option<BoxFuture<T, Status>>,
}

impl<T> Requests<T> {
    pub(super) fn new(encoded: Streaming<Encoded<T>>) -> Self {
        Self { encoded, current: None }
    }
}

impl<T: Incoming> Stream for Requests<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.current.is_none() {
            match ready!(Pin::new(&mut this.encoded).poll_next(cx)) {
                Some(Ok(next)) => this.current = Some(Box::pin(next.decode())),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
        let Some(current) = &mut this.current else { return Poll::Pending };
        let decoded = ready!(current.as_mut().poll(cx));
        this.current = None;
        Poll::Ready(Some(decoded))
    }
}

/// A request message.
pub(super) trait Incoming: Message + Default + Send + 'static {
    /// Counts the fields.
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over>;
}

impl Incoming for ExecuteRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(id)) => limits.kernel_id(id),
            (2, Value::Bytes(input)) => limits.text(input),
            _ => Ok(()),
        })
    }
}

impl Incoming for ExecuteTensorsRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(id)) => limits.kernel_id(id),
            (2, Value::Bytes(tensor)) => limits.tensor("inputs", tensor),
            _ => Ok(()),
        })
    }
}

impl Incoming for ExecuteStreamRequest {
    /// protobuf merges a call that occurs twice, so counts continue.
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (3, Value::Bytes(call)) => ExecuteRequest::check(call, limits),
            (4, Value::Bytes(call)) => ExecuteTensorsRequest::check(call, limits),
            _ => Ok(()),
        })
    }
}

impl Incoming for GetKernelRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(id)) => limits.kernel_id(id),
            _ => Ok(()),
        })
    }
}

impl Incoming for ListKernelsRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(domain)) => limits.name("domain", domain),
            (4, Value::Bytes(token)) => limits.name("page_token", token),
            _ => Ok(()),
        })
    }
}

impl Incoming for PutOperandRequest {
    /// JSON and chunks are slices of the message, and not copied.
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(start)) => limits.fields(start, |limits, field| match field {
                (1, Value::Bytes(name)) => limits.name("name", name),
                (2, Value::Bytes(name)) => limits.name("type", name),
                (4, Value::Bytes(tag)) => limits.name("if_match", tag),
                (7, Value::Bytes(tensors)) => limits.fields(tensors, |limits, field| match field {
                    (1, Value::Bytes(tensor)) => limits.tensor("tensors", tensor),
                    _ => Ok(()),
                }),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })
    }
}

impl Incoming for GetOperandRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(reference)) => limits.reference(reference),
            _ => Ok(()),
        })
    }
}

impl Incoming for ListOperandsRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (2, Value::Bytes(token)) => limits.name("page_token", token),
            _ => Ok(()),
        })
    }
}

impl Incoming for DeleteOperandRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(reference)) => limits.reference(reference),
            (2, Value::Bytes(tag)) => limits.name("if_match", tag),
            _ => Ok(()),
        })
    }
}

/// Counts of a message's fields.
#[derive(Debug)]
pub(super) struct Limits {
    fields_left: usize,
    tensors_left: usize,
    /// Bytes of texts without a limit of their own, which are copied.
    text: usize,
}

/// Why a message is rejected before it is decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    InvalidInput(InvalidInput),
    /// Prefix of a kernel id that is too long.
    UnknownKernel(String),
    /// The message is malformed, or has groups, which this service never had.
    Malformed,
}

impl From<Over> for Status {
    fn from(over: Over) -> Self {
        match over {
            Over::InvalidInput(invalid) => Rejection::from(invalid).into_status(None),
            Over::UnknownKernel(id) => Rejection::of(&KernelError::unknown(id)).into_status(None),
            // As prost's own errors.
            Over::Malformed => Status::internal("the request is not a valid protobuf message"),
        }
    }
}

pub(super) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Over {
    Over::InvalidInput(InvalidInput::new(field, reason))
}

impl Limits {
    pub(super) fn new() -> Self {
        Self { fields_left: MAX_FIELDS, tensors_left: MAX_TENSORS, text: 0 }
    }

    pub(super) fn fields(
        &mut self,
        mut message: &[u8],
        mut look: impl FnMut(&mut Self, (u64, Value<'_>)) -> Result<(), Over>,
    ) -> Result<(), Over> {
        while !message.is_empty() {
            let Some(left) = self.fields_left.checked_sub(1) else {
                return Err(invalid("request", format!("it has more than {MAX_FIELDS} fields, in all its messages")));
            };
            self.fields_left = left;
            let field = field(&mut message).ok_or(Over::Malformed)?;
            look(self, field)?;
        }
        Ok(())
    }

    pub(super) fn name(&self, field: &str, name: &[u8]) -> Result<(), Over> {
        if name.len() <= MAX_NAME_BYTES {
            return Ok(());
        }
        Err(invalid(field, format!("it is longer than {MAX_NAME_BYTES} bytes")))
    }

    /// A reference to an operand has a name and a version.
    fn reference(&self, reference: &[u8]) -> Result<(), Over> {
        if reference.len() <= MAX_REFERENCE_BYTES {
            return Ok(());
        }
        Err(invalid("operand", format!("it is longer than {MAX_REFERENCE_BYTES} bytes")))
    }

    fn kernel_id(&self, id: &[u8]) -> Result<(), Over> {
        if id.len() <= MAX_NAME_BYTES {
            return Ok(());
        }
        // More than is repeated, so that it is seen to be cut.
        let beginning = &id[..id.len().min(2 * MAX_REASON_BYTES)];
        Err(Over::UnknownKernel(String::from_utf8_lossy(beginning).into_owned()))
    }

    pub(super) fn text(&mut self, text: &[u8]) -> Result<(), Over> {
        self.text += text.len();
        Ok(())
    }

    /// `list` is the field that has the tensors.
    pub(super) fn tensor(&mut self, list: &str, tensor: &[u8]) -> Result<(), Over> {
        let index = MAX_TENSORS - self.tensors_left;
        let Some(left) = self.tensors_left.checked_sub(1) else {
            return Err(invalid(
                list,
                format!("there are more than {MAX_TENSORS} tensors, and {MAX_TENSORS} is the most"),
            ));
        };
        self.tensors_left = left;
        let mut rank = 0;
        self.fields(tensor, |limits, field| {
            match field {
                (1, Value::Bytes(name)) if name.len() > MAX_NAME_BYTES => {
                    return limits.name(&format!("{list}[{index}].name"), name);
                }
                (3, Value::Number) => rank += 1,
                (3, Value::Bytes(packed)) => {
                    // The last byte of each number has no continuation bit. Past a number's longest form for every
                    // dimension there are too many, whatever they are.
                    rank += packed.iter().take(MAX_RANK * 10 + 1).filter(|byte| **byte < 0x80).count();
                    if packed.len() > MAX_RANK * 10 {
                        rank = rank.max(MAX_RANK + 1);
                    }
                }
                _ => {}
            }
            if rank > MAX_RANK {
                let reason = format!("there are more than {MAX_RANK} dimensions, and {MAX_RANK} is the most");
                return Err(invalid(format!("{list}[{index}].shape"), reason));
            }
            Ok(())
        })
    }
}

/// Value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// Reads the next field: its number and value. `None` if it is malformed or a group.
fn field<'a>(message: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(message)?;
    let number = u32::try_from(key).ok()? >> 3;
    let value = match key & 7 {
        0 => varint(message).map(|_| Value::Number)?,
        1 => split(message, 8).map(|_| Value::Number)?,
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            Value::Bytes(split(message, length)?)
        }
        5 => split(message, 4).map(|_| Value::Number)?,
        _ => return None,
    };
    (number > 0).then_some((number.into(), value))
}

fn split<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (value, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(value)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for index in 0..10 {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        // The tenth has room for one bit.
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::proto::execute_stream_request::Call;
    use super::super::proto::{ExecuteStreamRequest, Tensor};
    use super::*;

    fn check<T: Incoming>(message: &[u8]) -> Result<(), Over> {
        T::check(message, &mut Limits::new())
    }

    /// The field that an error names.
    fn field_of(result: Result<(), Over>) -> String {
        match result {
            Err(Over::InvalidInput(invalid)) => invalid.field,
            other => panic!("{other:?}"),
        }
    }

    fn tensor(rank: usize) -> Tensor {
        Tensor { name: "x".into(), dtype: 1, shape: vec![u64::MAX; rank], data: Bytes::from_static(b"abc") }
    }

    fn tensors(tensors: impl IntoIterator<Item = Tensor>) -> ExecuteTensorsRequest {
        ExecuteTensorsRequest { kernel_id: "a".into(), inputs: tensors.into_iter().collect() }
    }

    /// A field of length `value.len()`.
    fn nested(number: u8, value: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(value.len() as u64, &mut field);
        field.extend_from_slice(value);
        field
    }

    #[test]
    fn what_is_within_the_limits_passes() {
        let full = tensors((0..MAX_TENSORS).map(|_| tensor(MAX_RANK)));
        assert_eq!(check::<ExecuteTensorsRequest>(&full.encode_to_vec()), Ok(()));
        let call = Some(Call::Tensors(full));
        let message = ExecuteStreamRequest { tag: u64::MAX, timeout_ms: 1, call }.encode_to_vec();
        assert_eq!(check::<ExecuteStreamRequest>(&message), Ok(()));
        // Each dimension a field of its own.
        let unpacked: Vec<u8> = [3 << 3, 7].repeat(MAX_RANK);
        assert_eq!(check::<ExecuteTensorsRequest>(&nested(2, &unpacked).repeat(MAX_TENSORS)), Ok(()));
        let json = ExecuteRequest { kernel_id: "k".repeat(128), input: "1".repeat(1 << 20) }.encode_to_vec();
        assert_eq!(check::<ExecuteRequest>(&json), Ok(()));
    }

    #[test]
    fn what_is_over_a_limit_is_named() {
        let many = nested(2, b"").repeat(MAX_TENSORS + 1);
        assert_eq!(field_of(check::<ExecuteTensorsRequest>(&many)), "inputs");
        assert_eq!(field_of(check::<ExecuteStreamRequest>(&nested(4, &many))), "inputs");
        // Parts of one call that prost merges.
        let half = nested(4, &nested(2, b"").repeat(MAX_TENSORS / 2));
        assert_eq!(check::<ExecuteStreamRequest>(&half.repeat(2)), Ok(()));
        assert_eq!(field_of(check::<ExecuteStreamRequest>(&half.repeat(3))), "inputs");

        let packed = tensors([tensor(0), tensor(MAX_RANK + 1)]).encode_to_vec();
        assert_eq!(field_of(check::<ExecuteTensorsRequest>(&packed)), "inputs[1].shape");
        let small = nested(2, &nested(3, &[1; MAX_RANK + 1]));
        assert_eq!(field_of(check::<ExecuteTensorsRequest>(&small)), "inputs[0].shape");
        let split = nested(2, &nested(3, &[1; MAX_RANK]).repeat(2));
        assert_eq!(field_of(check::<ExecuteTensorsRequest>(&split)), "inputs[0].shape");
        let unpacked = nested(2, &[3 << 3, 7].repeat(MAX_RANK + 1));
        assert_eq!(field_of(check::<ExecuteTensorsRequest>(&unpacked)), "inputs[0].shape");

        let tensors_of_operand = |tensors: &[u8]| nested(1, &nested(7, tensors));
        let many = tensors_of_operand(&nested(1, b"").repeat(MAX_TENSORS + 1));
        assert_eq!(field_of(check::<PutOperandRequest>(&many)), "tensors");
        let deep = tensors_of_operand(&nested(1, &nested(3, &[1; MAX_RANK + 1])));
        assert_eq!(field_of(check::<PutOperandRequest>(&deep)), "tensors[0].shape");
        for (field, name) in [(1, "name"), (2, "type"), (4, "if_match")] {
            let start = nested(1, &nested(field, &[b'x'; MAX_NAME_BYTES + 1]));
            assert_eq!(field_of(check::<PutOperandRequest>(&start)), name);
        }
        assert_eq!(check::<PutOperandRequest>(&nested(2, &vec![0; 1 << 20])), Ok(()));
        let reference = nested(1, &[b'x'; MAX_REFERENCE_BYTES + 1]);
        assert_eq!(field_of(check::<GetOperandRequest>(&reference)), "operand");
        assert_eq!(field_of(check::<DeleteOperandRequest>(&reference)), "operand");
        let token = nested(2, &[b'x'; MAX_NAME_BYTES + 1]);
        assert_eq!(field_of(check::<ListOperandsRequest>(&token)), "page_token");

        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let name = tensors([Tensor { name: long.clone(), ..tensor(0) }]).encode_to_vec();
        assert_eq!(field_of(check::<ExecuteTensorsRequest>(&name)), "inputs[0].name");
        let id = ExecuteRequest { kernel_id: long.clone(), input: String::new() }.encode_to_vec();
        assert_eq!(check::<ExecuteRequest>(&id), Err(Over::UnknownKernel(long.clone())));
        let id = GetKernelRequest { kernel_id: long.clone() }.encode_to_vec();
        assert_eq!(check::<GetKernelRequest>(&id), Err(Over::UnknownKernel(long.clone())));
        let token = ListKernelsRequest { page_token: long, ..Default::default() }.encode_to_vec();
        assert_eq!(field_of(check::<ListKernelsRequest>(&token)), "page_token");

        // Fields that nobody knows, and those that each replace the one before.
        for message in [[9 << 3, 1], [1 << 3 | 2, 0], [2 << 3 | 2, 0]] {
            assert_eq!(field_of(check::<ExecuteRequest>(&message.repeat(MAX_FIELDS + 1))), "request");
        }
    }

    #[test]
    fn groups_and_what_is_cut_off_are_malformed() {
        let group = [[9 << 3 | 3].repeat(50), [9 << 3 | 4].repeat(50)].concat();
        for message in [&group[..], b"\xff\xff\xff\xff", &[0, 1], &[2 << 3 | 2, 5, 1], &[1 << 3 | 7], &[0x80; 11]] {
            assert_eq!(check::<ExecuteTensorsRequest>(message), Err(Over::Malformed), "{message:?}");
        }
    }

    proptest! {
        /// Whatever prost decodes after the check is within the limits, so nothing can be hidden from it.
        #[test]
        fn what_passes_decodes_within_the_limits(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..8),
                    (1_u8..6, prop::collection::vec(any::<u8>(), 0..24)).prop_map(|(n, value)| nested(n, &value)),
                    prop::collection::vec(0_u64..u64::MAX, 0..12).prop_map(|shape| {
                        nested(2, &Tensor { shape, ..Tensor::default() }.encode_to_vec())
                    }),
                ],
                0..24,
            ),
        ) {
            let message = pieces.concat();
            if check::<ExecuteTensorsRequest>(&message).is_ok()
                && let Ok(decoded) = ExecuteTensorsRequest::decode(&message[..])
            {
                prop_assert!(decoded.inputs.len() <= MAX_TENSORS);
                prop_assert!(decoded.inputs.iter().all(|tensor| tensor.shape.len() <= MAX_RANK));
            }
        }
    }
}
