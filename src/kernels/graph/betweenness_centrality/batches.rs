//! [`Batches`]: packs the sources of several requests into batches that go through a graph together.

use std::ops::Range;

/// The sources of all requests, one request after the other, in batches of the same size.
#[derive(Debug)]
pub(super) struct Batches<'a> {
    /// How many sources each request has.
    lengths: &'a [usize],
    size: usize,
    start: usize,
    /// The first request that has sources from `start` on, and where its sources begin.
    request: usize,
    request_start: usize,
}

/// A batch of sources.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The sources of all requests that are in this batch.
    pub(super) sources: Range<usize>,
    /// The requests that they are of, in order.
    pub(super) segments: Vec<Segment>,
}

/// The sources of a batch that are of one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) request: usize,
    /// Counted from the start of the batch.
    pub(super) sources: Range<usize>,
    /// Whether the request has no sources in earlier batches.
    pub(super) is_first: bool,
    /// Whether the request has no sources in later batches.
    pub(super) is_last: bool,
}

impl<'a> Batches<'a> {
    /// Batches of `size` sources, the last of fewer.
    pub(super) fn new(lengths: &'a [usize], size: usize) -> Self {
        Self { lengths, size, start: 0, request: 0, request_start: 0 }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let batch = self.start..self.start + self.size;
        let mut segments = Vec::new();
        let mut end = batch.start;
        while end < batch.end
            && let Some(&length) = self.lengths.get(self.request)
        {
            let request = self.request_start..self.request_start + length;
            let sources = request.start.max(batch.start)..request.end.min(batch.end);
            end = sources.end;
            segments.push(Segment {
                request: self.request,
                sources: sources.start - batch.start..sources.end - batch.start,
                is_first: sources.start == request.start,
                is_last: sources.end == request.end,
            });
            if sources.end == request.end {
                self.request += 1;
                self.request_start = request.end;
            }
        }
        self.start = end;
        (!segments.is_empty()).then_some(Batch { sources: batch.start..end, segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Request, sources, first and last.
    type Fields = (usize, Range<usize>, bool, bool);

    /// Each batch as its sources and segments.
    fn batches(lengths: &[usize], size: usize) -> Vec<(Range<usize>, Vec<Fields>)> {
        let segment = |one: Segment| (one.request, one.sources, one.is_first, one.is_last);
        Batches::new(lengths, size)
            .map(|batch| (batch.sources, batch.segments.into_iter().map(segment).collect()))
            .collect()
    }

    #[test]
    fn requests_follow_each_other_and_are_split_where_a_batch_is_full() {
        assert_eq!(batches(&[], 4), []);
        assert_eq!(batches(&[3], 4), [(0..3, vec![(0, 0..3, true, true)])]);
        assert_eq!(
            batches(&[3, 6, 1, 2], 4),
            [
                (0..4, vec![(0, 0..3, true, true), (1, 3..4, true, false)]),
                (4..8, vec![(1, 0..4, false, false)]),
                (8..12, vec![(1, 0..1, false, true), (2, 1..2, true, true), (3, 2..4, true, true)]),
            ]
        );
    }

    #[test]
    fn every_source_is_in_one_segment_of_its_request() {
        let lengths: Vec<usize> = (0..50).map(|request| 1 + request * 37 % 11).collect();
        let expected: Vec<usize> = lengths.iter().enumerate().flat_map(|(request, &len)| vec![request; len]).collect();
        for size in [1, 2, 7, 32, 1000] {
            let mut owners = Vec::new();
            for batch in Batches::new(&lengths, size) {
                assert!(batch.sources.start == owners.len() && batch.sources.len() <= size);
                for segment in batch.segments {
                    assert_eq!(segment.sources.start, owners.len() - batch.sources.start);
                    assert_eq!(segment.is_first, !owners.contains(&segment.request));
                    owners.extend(vec![segment.request; segment.sources.len()]);
                    let count = owners.iter().filter(|owner| **owner == segment.request).count();
                    assert_eq!(segment.is_last, count == lengths[segment.request]);
                }
                assert_eq!(owners.len(), batch.sources.end);
            }
            assert_eq!(owners, expected, "{size}");
        }
    }
}
