//! The messages between a worker and its partner in a device process.
//!
//! A message has a head and sections. The head is the length of a record, the record, and the heads of the values that it is
//! about, one after another; the sections are those of these values, in the same order.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::copy::CopyThreads;
use crate::request::{BackendKind, Priority};
use crate::service::transfer::{Transfer, read_error, write_error};
use crate::service::{KernelError, Placement};

/// The length of the length of a record.
const LEN: usize = size_of::<u32>();

/// The kinds of messages.
pub(super) const RUN: u32 = 1;
pub(super) const OPERAND: u32 = 2;
pub(super) const DONE: u32 = 3;

/// What a device process is told when it is started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(super) backend: BackendKind,
    /// The device's ordinal; 0 for the CPU.
    pub(super) ordinal: u32,
    /// The settings of the device, as JSON; `null` for the CPU.
    pub(super) config: serde_json::Value,
    /// Threads that help to copy large arrays to shared memory, on either side.
    pub(super) copy_threads: usize,
}

impl Setup {
    /// The setup of a process that runs CPU code.
    pub(crate) fn cpu() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let copy_threads = CopyThreads::default_count(processors);
        Self { backend: BackendKind::Cpu, ordinal: 0, config: serde_json::Value::Null, copy_threads }
    }

    /// The setup of a process that owns a CUDA device.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(ordinal: u32, config: serde_json::Value, copy_threads: usize) -> Self {
        Self { backend: BackendKind::Cuda, ordinal, config, copy_threads }
    }
}

/// What a device process reports to its parent outside of calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It runs jobs from now on. What the device is, as JSON.
    Ready(serde_json::Value),
    /// It cannot be set up, and ends.
    Failed(String),
    /// The device is lost, and the process ends: the driver's words.
    Fault(String),
    /// The memory in use, as JSON.
    Usage(serde_json::Value),
}

/// The number of bytes and sections of a value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Size {
    head: u32,
    sections: u32,
}

/// A job: one input, or those of the jobs that share its run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) kernel: Cow<'static, str>,
    pub(super) priority: Priority,
    /// From now to the deadline.
    pub(super) time_left: Option<Duration>,
    /// Versions of operands that the process may forget, as no request can refer to them any more.
    pub(super) forget: Vec<u64>,
    pub(super) inputs: Vec<Size>,
}

/// An operand that the process does not have.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredOperand {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) version: u64,
    pub(super) r#type: String,
    pub(super) placement: Placement,
    /// The names, dtypes and shapes of its tensors, whose data are the sections.
    pub(super) tensors: Vec<StoredTensor>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredTensor {
    pub(super) name: String,
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
}

/// What became of a job: an output for each of its inputs, or the error of all of them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) outputs: Result<Vec<Result<Size, SentError>>, SentError>,
    /// The device's own times, if the run was sampled.
    pub(super) times: Option<DeviceTimesRecord>,
    /// Versions of operands that were on the device before the run.
    pub(super) resident: Vec<u64>,
}

/// [`DeviceTimes`](crate::request::DeviceTimes).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct DeviceTimesRecord {
    pub(super) upload: Duration,
    pub(super) kernel: Duration,
    pub(super) download: Duration,
    pub(super) bound: Option<Duration>,
}

/// An error that crosses to the other process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SentError(Vec<u8>);

impl From<&KernelError> for SentError {
    fn from(error: &KernelError) -> Self {
        let unwritable = |error| write_error(&KernelError::from(error)).unwrap_or_default();
        Self(write_error(error).unwrap_or_else(unwritable))
    }
}

impl SentError {
    /// Reads the error.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(&self) -> Result<KernelError, String> {
        read_error(&self.0).map_err(|error| error.to_string())
    }
}

/// Writes a record and the values that it is about.
pub(super) fn write<'a>(
    record: &impl Serialize,
    values: impl IntoIterator<Item = &'a Transfer>,
) -> Result<(Vec<u8>, Vec<Bytes>), String> {
    // Structs as arrays: both processes are the same program.
    let mut head = vec![0; LEN];
    rmp_serde::encode::write(&mut head, record).map_err(|error| error.to_string())?;
    let len = u32::try_from(head.len() - LEN).map_err(|_| "a record of 4 GiB".to_owned())?;
    head[..LEN].copy_from_slice(&len.to_le_bytes());
    let mut sections = Vec::new();
    for value in values {
        head.extend_from_slice(&value.head);
        sections.extend(value.sections.iter().cloned());
    }
    Ok((head, sections))
}

/// Returns the size of a value in a record.
pub(super) fn size(value: &Transfer) -> Result<Size, String> {
    let head = u32::try_from(value.head.len()).map_err(|_| "the head of a value has 4 GiB".to_owned())?;
    let sections = u32::try_from(value.sections.len()).map_err(|_| "a value has 2^32 arrays".to_owned())?;
    Ok(Size { head, sections })
}

/// A message that was received.
pub(super) struct Reader {
    head: Vec<u8>,
    at: usize,
    sections: std::vec::IntoIter<Bytes>,
}

impl Reader {
    /// Reads the record.
    ///
    /// # Errors
    /// What is wrong with the message: the other process has a fault, or means harm.
    pub(super) fn new<R: DeserializeOwned>(head: Vec<u8>, sections: Vec<Bytes>) -> Result<(R, Self), String> {
        let len = head.first_chunk().map(|len| u32::from_le_bytes(*len)).ok_or("a head without a record")?;
        let end = usize::try_from(len).ok().and_then(|len| len.checked_add(LEN)).ok_or("a record that is too long")?;
        let record = head.get(LEN..end).ok_or("a record that is longer than the head")?;
        let record = rmp_serde::from_slice(record).map_err(|error| format!("a record that does not parse: {error}"))?;
        Ok((record, Self { head, at: end, sections: sections.into_iter() }))
    }

    /// Takes the next value.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub(super) fn value(&mut self, Size { head, sections }: Size) -> Result<Transfer, String> {
        let end =
            usize::try_from(head).ok().and_then(|len| self.at.checked_add(len)).ok_or("a value that is too long")?;
        let bytes = self.head.get(self.at..end).ok_or("a value that is longer than the head")?.to_vec();
        let count = usize::try_from(sections).unwrap_or(usize::MAX);
        if count > self.sections.len() {
            return Err("a value of more sections than the message has".to_owned());
        }
        self.at = end;
        Ok(Transfer { head: bytes, sections: self.sections.by_ref().take(count).collect() })
    }

    /// Takes all sections that are left.
    pub(super) fn sections(self) -> Vec<Bytes> {
        self.sections.collect()
    }
}
