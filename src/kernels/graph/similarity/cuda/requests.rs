//! Runs requests on the same graph together on CUDA.

use super::DeviceGraph;
use super::pairs::pair_scores;
use super::top::{SimilarNodes, most_similar};
use crate::kernels::graph::similarity::{Measure, Request, SimilarityOutput, Wanted};
use crate::service::{Buffer, Element, InvalidInput, KernelError, LaunchContext};

/// Returns the outputs of requests on the same graph, in order.
///
/// # Errors
/// Those of the launch context; an invalid graph.
pub(in crate::kernels::graph) fn run(
    requests: &[Request<'_>],
    measure: Measure,
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<SimilarityOutput>, KernelError> {
    let Some(first) = requests.first() else { return Ok(Vec::new()) };
    let graph = first.graph.load_in(cuda.context())?;
    let wanted = requests.iter().map(Request::wanted).collect::<Result<Vec<_>, InvalidInput>>()?;
    let pairs: Vec<&[[u32; 2]]> = wanted
        .iter()
        .filter_map(|wanted| if let Wanted::Pairs(pairs) = wanted { Some(*pairs) } else { None })
        .collect();
    let sources: Vec<&[u32]> = wanted
        .iter()
        .filter_map(|wanted| if let Wanted::SimilarTo(nodes) = wanted { Some(*nodes) } else { None })
        .collect();
    let on_device = DeviceGraph::new(&graph, measure, cuda)?;

    let mut of_pairs = Vec::new();
    if !pairs.is_empty() {
        of_pairs = pair_scores(&on_device, &pairs, cuda)?;
    }
    let each = |request: &Request<'_>| (request.top_k as usize).min(graph.num_nodes().saturating_sub(1));
    let with_nodes = || requests.iter().filter(|request| request.pairs.is_none());
    // The similar nodes of a request for fewer are the first of those for more.
    let most = with_nodes().map(each).max().unwrap_or(0);
    let lengths: Vec<[usize; 2]> =
        with_nodes().zip(&sources).map(|(request, nodes)| [nodes.len(), each(request)]).collect();
    let mut of_nodes = vec![(Buffer::default(), Buffer::default()); lengths.len()];
    if most > 0 && sources.iter().any(|nodes| !nodes.is_empty()) {
        let sources = cuda.input_parts(sources)?;
        let SimilarNodes { scores, nodes } = most_similar(&on_device, &sources, most as u32, cuda)?;
        let all: Vec<usize> = lengths.iter().map(|[sources, _]| sources * most).collect();
        let scores = first_of_rows(cuda.download_parts(&scores, &all)?, most, &lengths);
        let nodes = first_of_rows(cuda.download_parts(&nodes, &all)?, most, &lengths);
        of_nodes = scores.zip(nodes).collect();
    }
    let (mut of_pairs, mut of_nodes) = (of_pairs.into_iter(), of_nodes.into_iter());
    let output = |request: &Request<'_>| {
        let (scores, similar_nodes) = match request.pairs {
            Some(_) => (of_pairs.next().expect("as many as requests with pairs"), Buffer::default()),
            None => of_nodes.next().expect("as many as requests with nodes"),
        };
        SimilarityOutput { scores, similar_nodes }
    };
    Ok(requests.iter().map(output).collect())
}

/// Returns the first elements of each row of `most`, as many as each request asks for.
fn first_of_rows<T: Element>(
    parts: Vec<Buffer<T>>,
    most: usize,
    lengths: &[[usize; 2]],
) -> impl Iterator<Item = Buffer<T>> {
    parts.into_iter().zip(lengths).map(move |(part, &[_, each])| {
        if each == most {
            return part;
        }
        part.chunks(most).flat_map(|row| &row[..each]).copied().collect()
    })
}
