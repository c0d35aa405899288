//! Metrics of the log.

use super::repeats::Repeats;
use super::writer::Queue;

/// Returns the metrics of the log as OpenMetrics text.
pub(super) fn render(queue: &Queue, repeats: &Repeats) -> String {
    format!(
        "# HELP kernel_log_lines_dropped Log lines that were dropped: summarized repeats, lines that did not fit into the \
         queue of a slow reader, and lines whose write failed.\n\
         # TYPE kernel_log_lines_dropped counter\n\
         kernel_log_lines_dropped_total{{reason=\"repeated\"}} {repeated}\n\
         kernel_log_lines_dropped_total{{reason=\"slow_reader\"}} {slow_reader}\n\
         kernel_log_lines_dropped_total{{reason=\"write_error\"}} {write_error}\n\
         # HELP kernel_log_queue_bytes Size of the log lines that wait to be written.\n\
         # TYPE kernel_log_queue_bytes gauge\n\
         # UNIT kernel_log_queue_bytes bytes\n\
         kernel_log_queue_bytes {bytes}\n",
        repeated = repeats.repeated(),
        slow_reader = queue.slow_reader(),
        write_error = queue.write_error(),
        bytes = queue.bytes(),
    )
}
