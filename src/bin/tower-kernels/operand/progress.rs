//! [`UploadBar`]: the progress bar of an upload, on stderr if that is a terminal.

use std::future::Future;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::upload::UploadProgress;

/// Uploads that take longer than this show their progress.
const SHOW_AFTER: Duration = Duration::from_millis(400);
/// How often the progress is updated.
const INTERVAL: Duration = Duration::from_millis(100);

const UPLOADING: &str = "{spinner} {elapsed} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
const UPLOADING_OF_UNKNOWN_LENGTH: &str = "{spinner} {elapsed} {binary_bytes} {binary_bytes_per_sec}";
/// The server has the whole body, and makes the value of it.
const BUILDING: &str = "{spinner} {elapsed} {binary_bytes} sent, building";

pub(super) struct UploadBar {
    progress: UploadProgress,
    bar: ProgressBar,
    is_building: bool,
}

impl UploadBar {
    pub(super) fn new(length: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        bar.set_style(style(if length.is_some() { UPLOADING } else { UPLOADING_OF_UNKNOWN_LENGTH }));
        Self { progress: UploadProgress::default(), bar, is_building: false }
    }

    /// The progress that the bar shows.
    pub(super) fn progress(&self) -> UploadProgress {
        self.progress.clone()
    }

    /// Updates the bar until the upload ends.
    pub(super) async fn while_running<T>(&mut self, upload: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + SHOW_AFTER, INTERVAL);
        let mut upload = std::pin::pin!(upload);
        loop {
            tokio::select! {
                ended = &mut upload => return ended,
                _ = ticks.tick() => self.update(),
            }
        }
    }

    fn update(&mut self) {
        if self.bar.is_hidden() {
            // Stays hidden if stderr is not a terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(self.progress.sent());
        if self.progress.is_complete() && !self.is_building {
            self.is_building = true;
            self.bar.set_style(style(BUILDING));
        }
        self.bar.tick();
    }
}

/// Removes the bar also when the upload is cancelled.
impl Drop for UploadBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a literal")
}
