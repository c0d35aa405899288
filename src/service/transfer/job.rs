//! Jobs whose kernel runs in another process.

use super::{Transfer, TransferError};
use crate::request::Priority;
use crate::service::erased::Input;
use crate::service::{Job, KernelError, MemberResults, RegisteredKernel, RequestOperands, Typed, VersionLookup};

impl Job {
    /// Writes the prepared input; of a job that others were merged into, that of each.
    ///
    /// One whose deadline has passed, and whose host memory cannot be reserved, has that error instead. It is the result of
    /// that member in [`join_outputs`](Self::join_outputs).
    pub(crate) fn transfers(&self) -> Vec<Result<Transfer, KernelError>> {
        match self.members() {
            None => vec![self.transfer()],
            Some(members) => {
                let mut now = None;
                members.iter().map(|job| job.admit(&mut now).and_then(|()| job.transfer())).collect()
            }
        }
    }

    fn transfer(&self) -> Result<Transfer, KernelError> {
        let input = self.prepared_input()?;
        self.kernel.guarded(|kernel| kernel.transfer_input(input))?
    }

    /// Makes a prepared job of the inputs that another process has sent, whose operands `versions` finds. Several are merged.
    ///
    /// # Errors
    /// [`TransferError`], if one is no input of the kernel, or if there are none.
    pub(crate) fn received(
        kernel: &RegisteredKernel,
        transfers: Vec<Transfer>,
        versions: &VersionLookup,
    ) -> Result<Self, KernelError> {
        let receive = |transfer| -> Result<Self, KernelError> {
            let input: Input = kernel.guarded(|kernel| kernel.receive_input(transfer, versions))??;
            let operands = RequestOperands::uncounted(kernel.operands(&input.value));
            let mut job = Self::prepared(kernel.clone(), input);
            job.operands = operands;
            Ok(job)
        };
        let mut jobs = transfers.into_iter().map(receive).collect::<Result<Vec<_>, _>>()?;
        match jobs.len() {
            0 => Err(TransferError::Read("no inputs".to_owned()).into()),
            1 => Ok(jobs.remove(0)),
            _ => Ok(Self::merge(jobs)),
        }
    }

    /// Sets the priority, as that of the job in the process that has sent it.
    pub(crate) fn set_priority(&mut self, priority: Priority) {
        self.priority = priority;
    }

    /// Splits the output of a job that was [received](Self::received) into one for each of its inputs.
    pub(crate) fn split_output(&self, output: Typed) -> Vec<Result<Typed, KernelError>> {
        if self.members().is_none() {
            return vec![Ok(output)];
        }
        MemberResults::typed(&output)
    }

    /// Joins the outputs for each of the inputs that [`transfers`](Self::transfers) returned into the output of this job.
    ///
    /// # Errors
    /// The error of a job that others were not merged into, and [`TransferError`] if there is not one result for each.
    pub(crate) fn join_outputs(&self, outputs: Vec<Result<Typed, KernelError>>) -> Result<Typed, KernelError> {
        let expected = self.members().map_or(1, <[Self]>::len);
        if outputs.len() != expected {
            return Err(TransferError::Read(format!("{} results for {expected} inputs", outputs.len())).into());
        }
        let Some(members) = self.members() else {
            return outputs.into_iter().next().expect("there is one");
        };
        let results = members.iter().zip(outputs).map(|(job, output)| output.map(|output| job.payload_of(output)));
        Ok(MemberResults::into_typed(results.collect()))
    }
}
