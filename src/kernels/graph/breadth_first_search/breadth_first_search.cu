// Distances from some sources in an unweighted graph. frontier.cuh describes the algorithm.
//
//   breadth_first_search_clear   all items are unreached
//   breadth_first_search_start   the sources are the first level
//   breadth_first_search_levels  a cooperative launch: up to `levels` levels of at most `max_entries` entries each
//
// Graph: CSR, row offsets u32[n + 1], columns u32[arcs], every column below n; by out-arcs and by in-arcs. Where the
// latter are not at hand, pull_factor is 0 and they are not read. An item is a pair (source, node), source * n + node;
// there are fewer than 2^32 of them. `distance` and `list` are u32[items]; the host zeroes `frontier`.

#include "frontier.cuh"

// One thread an item.
extern "C" __global__ void __launch_bounds__(256) breadth_first_search_clear(u32 items, u32* distance) {
    const u32 item = blockIdx.x * BLOCK + threadIdx.x;
    if (item < items) distance[item] = UNREACHED;
}

// One block.
extern "C" __global__ void __launch_bounds__(256) breadth_first_search_start(
    u32 n, u32 num_sources, const u32* sources, const u32* out_row, u32* distance, u32* list, Frontier* frontier) {
    BreadthFirstSearch{n, num_sources, 0, out_row, nullptr, nullptr, nullptr, distance, list, frontier, nullptr}
        .start(sources);
}

extern "C" __global__ void __launch_bounds__(256, 4) breadth_first_search_levels(
    u32 n, u32 num_sources, u32 pull_factor, const u32* out_row, const u32* out_column, const u32* in_row,
    const u32* in_column, u32* distance, u32* list, Frontier* frontier, const volatile u32* cancel, u32 levels,
    u32 max_entries) {
    const BreadthFirstSearch search = {n, num_sources, pull_factor, out_row, out_column, in_row, in_column,
        distance, list, frontier, cancel};
    for (u32 level = 0; level < levels && search.has_level(max_entries); level++) search.advance_level();
}
