// Scores of pairs of nodes from their common neighbours, and the nodes with the highest scores with given ones.
//
// Graph: CSR, row offsets u32[n + 1] and columns u32[arcs], rows ascending without repeats, both directions of each edge.
// A common neighbour adds 1 to a sum, or its weight, as a multiple of 2^-57 (fixed_point.cuh): sums are exact, and so
// they are the same in any order and on the CPU. The score follows from the sum and the degrees of the two nodes.
//
// Pairs (host: pairs.rs)
//   1. similarity_pieces      counts pieces of PIECE nodes of the shorter row of each pair; a scan makes them offsets
//   2. similarity_intersect   a warp for each piece: it is looked up in the part of the longer row that can have it, by
//                             binary search if that is far longer, or else the part is looked up in a hash set of the piece
//   3. similarity_score       scores of the pairs that have no piece or several
//
// Similar nodes of a source (host: top.rs)
//   1. similarity_plan        counts the wedges of each source, which are the neighbours of its neighbours, and how many
//                             blocks share it; a scan makes these offsets
//   2. similarity_search      a block for each share: sums for the ends of all wedges, in a hash table of shared memory if
//                             they fit, and otherwise for one range of nodes after the other, without keys. A share has
//                             some of the ranges. The best go through a buffer (top_k.cuh).
//   3. similarity_merge       the best of the shares of a source
//
// A wedge is a load of 4 bytes, which neighbours in a row make together, and one addition in shared memory, or two if
// there are weights. Rows are ascending, so a range of nodes is a part of each row.

#include "cancel.cuh"
#include "fixed_point.cuh"
#include "hash_table.cuh"
#include "intersect.cuh"
#include "scan.cuh"
#include "top_k.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;

// As in similarity/mod.rs.
constexpr u32 COMMON_NEIGHBORS = 0;
constexpr u32 JACCARD = 1;
constexpr u32 ADAMIC_ADAR = 2;
constexpr u32 COSINE = 3;

static __device__ double score_of(u32 measure, double sum, u32 degree_a, u32 degree_b) {
    const double a = degree_a, b = degree_b;
    if (sum == 0 || measure == COMMON_NEIGHBORS || measure == ADAMIC_ADAR) return sum;
    if (measure == JACCARD) return sum / (a + b - sum);
    return sum / sqrt(a * b);
}

// Whether a score may be as high as `least`: false only if it is lower. Few instructions, as it is asked for all candidates.
static __device__ bool may_reach(u32 measure, float sum, u32 degree_a, u32 degree_b, float least) {
    const float a = degree_a, b = degree_b;
    least *= 0.9999f; // all that is rounded here together is less
    if (measure == JACCARD) return sum >= least * (a + b - sum);
    if (measure == COSINE) return sum * sum >= least * least * (a * b);
    return sum >= least;
}

struct Graph {
    u32 nodes;
    const u32* offsets;
    const u32* columns;

    __device__ u32 degree(u32 node) const { return offsets[node + 1] - offsets[node]; }

    // The first of the columns begin..end that is not below `node`, or the end.
    __device__ u32 lower_bound(u32 begin, u32 end, u32 node) const {
        while (begin < end) {
            const u32 middle = begin + (end - begin) / 2;
            if (columns[middle] < node) {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        return begin;
    }
};

// Whether the request is cancelled; called by one thread of a block now and then. Few blocks poll the host's flag.
struct CancelPoll {
    CancelSignal signal;
    u32 calls;

    __device__ bool is_cancelled() {
        if (blockIdx.x % CANCEL_BLOCKS == 0 && calls++ % 8 == 0 && signal.poll_cancel()) return true;
        return signal.is_seen();
    }
};

// ---------------------------------------------------------------------------------------------------------------- pairs

constexpr u32 PIECE = 256;
constexpr u32 PIECE_SLOTS = 4 * PIECE;
constexpr u32 PAIR_THREADS = 128;
constexpr u32 PAIR_WARPS = PAIR_THREADS / 32;
constexpr u32 SHORT_WINDOW = 64;   // in which a binary search takes as few steps as a hash table
constexpr u32 SEARCH_FACTOR = 16;  // by which a part of a row is longer than a piece that is searched in it
constexpr u32 PIECES_PER_TAKE = 32;

extern "C" __global__ void __launch_bounds__(256)
    similarity_pieces(u32 count, const uint2* pairs, const u32* offsets, u32* pieces) {
    const u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    const uint2 pair = pairs[i];
    const u32 shorter = min(offsets[pair.x + 1] - offsets[pair.x], offsets[pair.y + 1] - offsets[pair.y]);
    pieces[i] = (shorter + PIECE - 1) / PIECE;
}

// The sum of a lane over the nodes that a piece has in common with a row.
template <bool WEIGHTED>
static __device__ FixedSum intersect(const Graph& graph, const u64* weights, u32* memory, uint2 pair, u32 piece) {
    const u32 lane = threadIdx.x % 32;
    u32 begin = graph.offsets[pair.x], end = graph.offsets[pair.x + 1];
    u32 other = graph.offsets[pair.y], other_end = graph.offsets[pair.y + 1];
    if (end - begin > other_end - other) {
        const u32 row = begin, row_end = end;
        begin = other;
        end = other_end;
        other = row;
        other_end = row_end;
    }
    begin += piece * PIECE;
    end = min(end, begin + PIECE);
    const u32 length = end - begin;
    if (other_end - other > SHORT_WINDOW) {
        // Lane 0 searches where the part begins, and lane 1 where it ends.
        const u32 bound = graph.columns[lane == 0 ? begin : end - 1] + (lane == 0 ? 0 : 1);
        const u32 found = lane < 2 ? graph.lower_bound(other, other_end, bound) : 0;
        other = __shfl_sync(ALL_LANES, found, 0);
        other_end = __shfl_sync(ALL_LANES, found, 1);
    }
    FixedSum sum = {0, 0};
    const auto count = [&](u32 node) { sum.add(WEIGHTED ? weights[graph.degree(node)] : 1); };
    const u32 window = other_end - other;
    if (window <= SHORT_WINDOW || window > SEARCH_FACTOR * length) {
        for (u32 at = begin + lane; at < end; at += 32) {
            const u32 node = graph.columns[at], found = graph.lower_bound(other, other_end, node);
            if (found < other_end && graph.columns[found] == node) count(node);
        }
        return sum;
    }
    WarpGroup group;
    NodeSet<PIECE_SLOTS> set(memory);
    set.reset(group, length);
    group.sync();
    for (u32 at = begin + lane; at < end; at += 32) set.insert(graph.columns[at]);
    group.sync();
    constexpr u32 AHEAD = 4; // loads in flight
    for (u32 base = other; base < other_end; base += AHEAD * 32) {
        u32 nodes[AHEAD];
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            const u32 at = base + i * 32 + lane;
            nodes[i] = at < other_end ? graph.columns[at] : NO_NODE;
        }
#pragma unroll
        for (u32 i = 0; i < AHEAD; i++) {
            if (nodes[i] != NO_NODE && set.find(nodes[i]) != NO_SLOT) count(nodes[i]);
        }
    }
    group.sync();
    return sum;
}

// Stores the score of a pair of one piece, and adds to the sum of one of several.
template <bool WEIGHTED>
static __device__ void intersect_all(
    const Graph& graph, const u64* weights, u32 measure, u32 count, const uint2* pairs, const u64* piece_offsets,
    u64* next, u64* sums, double* scores, CancelSignal signal) {
    __shared__ __align__(8) u32 memory[PAIR_WARPS * 2 * PIECE_SLOTS];
    u32* const set = memory + threadIdx.x / 32 * 2 * PIECE_SLOTS;
    const u32 lane = threadIdx.x % 32;
    const u64 total = piece_offsets[count];
    CancelPoll poll = {signal, 0};
    for (;;) {
        u64 first = 0;
        if (lane == 0) first = poll.is_cancelled() ? total : atomicAdd(next, (u64)PIECES_PER_TAKE);
        first = __shfl_sync(ALL_LANES, first, 0);
        if (first >= total) return;
        // Each lane looks for the pair of a piece.
        u32 pair = 0;
        if (first + lane < total) {
            u32 end = count;
            while (pair + 1 < end) {
                const u32 middle = pair + (end - pair) / 2;
                if (piece_offsets[middle] <= first + lane) {
                    pair = middle;
                } else {
                    end = middle;
                }
            }
        }
        const u32 pieces = (u32)min(total - first, (u64)PIECES_PER_TAKE);
        for (u32 i = 0; i < pieces; i++) {
            const u32 at = __shfl_sync(ALL_LANES, pair, i);
            const u64 start = piece_offsets[at];
            const uint2 nodes = pairs[at];
            const FixedSum sum =
                sum_warp(intersect<WEIGHTED>(graph, weights, set, nodes, (u32)(first + i - start)));
            if (lane != 0) continue;
            if (piece_offsets[at + 1] - start == 1) {
                const double value = WEIGHTED ? to_double(sum) : (double)sum.low;
                scores[at] = score_of(measure, value, graph.degree(nodes.x), graph.degree(nodes.y));
            } else {
                const u64 old = atomicAdd(&sums[2 * at], sum.low);
                const u64 high = sum.high + (old > ~sum.low);
                if (high != 0) atomicAdd(&sums[2 * at + 1], high);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(PAIR_THREADS)
    similarity_intersect(u32 nodes, const u32* offsets, const u32* columns, u32 measure, u32 count, const uint2* pairs,
                         const u64* piece_offsets, u64* next, u64* sums, double* scores, const volatile u32* flag,
                         u32* cancelled) {
    const Graph graph = {nodes, offsets, columns};
    intersect_all<false>(graph, nullptr, measure, count, pairs, piece_offsets, next, sums, scores, {flag, cancelled});
}

extern "C" __global__ void __launch_bounds__(PAIR_THREADS)
    similarity_intersect_weighted(u32 nodes, const u32* offsets, const u32* columns, u32 measure, u32 count,
                                  const uint2* pairs, const u64* piece_offsets, u64* next, u64* sums, double* scores,
                                  const u64* weights, const volatile u32* flag, u32* cancelled) {
    const Graph graph = {nodes, offsets, columns};
    intersect_all<true>(graph, weights, measure, count, pairs, piece_offsets, next, sums, scores, {flag, cancelled});
}

extern "C" __global__ void __launch_bounds__(256)
    similarity_score(const u32* offsets, u32 measure, u32 count, const uint2* pairs, const u64* piece_offsets,
                     const u64* sums, double* scores) {
    const u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= count || piece_offsets[i + 1] - piece_offsets[i] == 1) return;
    const uint2 pair = pairs[i];
    const FixedSum sum = {sums[2 * i], sums[2 * i + 1]};
    const double value = measure == ADAMIC_ADAR ? to_double(sum) : (double)sum.low;
    scores[i] = score_of(measure, value, offsets[pair.x + 1] - offsets[pair.x], offsets[pair.y + 1] - offsets[pair.y]);
}

// ------------------------------------------------------------------------------------------------------- similar nodes

constexpr u32 THREADS = 512;
constexpr u32 WARPS = THREADS / 32;
constexpr u32 LOADS = 8; // of a lane, in flight
constexpr u32 CHUNK = 32 * LOADS;
// Neighbours of a source whose weights cannot add up to 2^64 units: each is at most 1 / ln 2.
constexpr u32 TWO_WORD_DEGREE = 88;

// The buffer of the best candidates, and after it the sums.
extern __shared__ u64 block_memory[];

// How the sums of a source are kept in shared memory.
struct Layout {
    bool is_hashed;
    u32 bits;  // of a count; 32 if there are weights
    u32 words; // of a sum
    u32 range; // nodes of a part, or slots of the table
    u32 parts;
};

template <bool WEIGHTED>
static __device__ Layout layout_of(u32 nodes, u32 table_words, u32 degree, u64 wedges) {
    Layout layout;
    layout.words = !WEIGHTED ? 1 : degree <= TWO_WORD_DEGREE ? 2 : 3;
    const u32 slots = table_words / (1 + layout.words);
    layout.is_hashed = wedges <= slots / 4 * 3;
    if (layout.is_hashed) {
        layout.bits = 32;
        layout.range = min(slots, max(2 * (u32)wedges, 64u));
        layout.parts = 1;
    } else {
        // No count is higher than the degree of the source.
        layout.bits = WEIGHTED || degree >> 16 != 0 ? 32 : degree >> 8 != 0 ? 16 : 8;
        layout.range = table_words / layout.words * (32 / layout.bits);
        layout.parts = (nodes + layout.range - 1) / layout.range;
    }
    return layout;
}

// A warp for each source: its wedges, and how many blocks share it.
template <bool WEIGHTED>
static __device__ void plan(
    const Graph& graph, u32 table_words, u64 share, u32 count, const u32* sources, u64* wedges, u32* blocks) {
    const u32 at = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (at >= count) return;
    const u32 source = sources[at], begin = graph.offsets[source], end = graph.offsets[source + 1];
    u64 sum = 0;
    for (u32 i = begin + lane; i < end; i += 32) {
        const u32 degree = graph.degree(graph.columns[i]);
        if (degree > 1) sum += degree;
    }
    for (u32 delta = 16; delta > 0; delta /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, delta);
    if (lane != 0) return;
    const Layout layout = layout_of<WEIGHTED>(graph.nodes, table_words, end - begin, sum);
    // Each range is read and cleared too.
    const u64 work = sum + (layout.is_hashed ? 0 : graph.nodes / 4);
    wedges[at] = sum;
    blocks[at] = (u32)min((u64)layout.parts, (work + share - 1) / share + (work == 0));
}

extern "C" __global__ void __launch_bounds__(256)
    similarity_plan(u32 nodes, const u32* offsets, const u32* columns, u32 measure, u32 table_words, u64 share, u32 count,
                    const u32* sources, u64* wedges, u32* blocks) {
    const Graph graph = {nodes, offsets, columns};
    if (measure == ADAMIC_ADAR) {
        plan<true>(graph, table_words, share, count, sources, wedges, blocks);
    } else {
        plan<false>(graph, table_words, share, count, sources, wedges, blocks);
    }
}

// Rows of neighbours, and where their wedges are among those of all.
struct Rows {
    u32 starts[THREADS];      // of the first column, less the wedges before
    u32 before[THREADS + 1];  // wedges of the rows before
    u64 weights[THREADS];
};

// Calls `add(end, row)` for each wedge of a source whose end is in first..last. False once the request is cancelled.
template <bool WEIGHTED, class Add>
static __device__ bool for_each_wedge(
    const Graph& graph, const u64* weights, Rows& rows, u32 source, u32 first, u32 last, CancelPoll& poll, Add add) {
    __shared__ bool ends;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const bool is_whole = first == 0 && last == graph.nodes;
    const u32 row_end = graph.offsets[source + 1];
    for (u32 base = graph.offsets[source]; base < row_end; base += THREADS) {
        if (threadIdx.x == 0) ends = poll.is_cancelled();
        u32 begin = 0, length = 0;
        if (base + threadIdx.x < row_end) {
            const u32 neighbor = graph.columns[base + threadIdx.x];
            u32 end = graph.offsets[neighbor + 1];
            begin = graph.offsets[neighbor];
            const u32 degree = end - begin;
            if (WEIGHTED) rows.weights[threadIdx.x] = degree > 1 ? weights[degree] : 0;
            if (!is_whole) {
                begin = graph.lower_bound(begin, end, first);
                end = graph.lower_bound(begin, end, last);
            }
            if (degree > 1) length = end - begin;
        }
        u32 total;
        const u32 before = scan_block<THREADS>(length, total);
        rows.before[threadIdx.x] = before;
        rows.starts[threadIdx.x] = begin - before;
        if (threadIdx.x == 0) rows.before[THREADS] = total;
        __syncthreads();
        if (ends) return false;
        // The last row with no more wedges before it than this.
        const auto row_of = [&](u32 wedge) {
            u32 row = 0;
#pragma unroll
            for (u32 step = THREADS / 2; step > 0; step /= 2) row += rows.before[row + step] <= wedge ? step : 0;
            return row;
        };
        for (u32 chunk = warp * CHUNK; chunk < total; chunk += WARPS * CHUNK) {
            u32 ends_of[LOADS], rows_of[LOADS];
            u32 row = chunk + lane < total ? row_of(chunk + lane) : 0;
#pragma unroll
            for (u32 i = 0; i < LOADS; i++) {
                const u32 wedge = chunk + i * 32 + lane;
                ends_of[i] = NO_NODE;
                if (wedge < total) {
                    if (wedge >= rows.before[row + 1]) row = row_of(wedge);
                    ends_of[i] = graph.columns[rows.starts[row] + wedge];
                }
                rows_of[i] = row;
            }
#pragma unroll
            for (u32 i = 0; i < LOADS; i++) {
                if (ends_of[i] != NO_NODE) add(ends_of[i], rows_of[i]);
            }
        }
        __syncthreads();
    }
    return true;
}

template <bool WEIGHTED> struct Search {
    Graph graph;
    const u64* weights;
    u32 measure, table_words;
    u32* table;
    Rows& rows;
    BlockTopK<THREADS>& best;
    CancelPoll& poll;

    __device__ void offer(bool has, double sum, u32 source, u32 degree, u32 node) {
        u64 score = 0;
        if (has) score = __double_as_longlong(score_of(measure, sum, degree, graph.degree(node)));
        best.offer(has, score, node);
    }

    __device__ float least() const { return (float)__longlong_as_double(best.state->least_score); }

    // The sum of a table's words.
    __device__ FixedSum sum_at(u32 at, u32 range, u32 words) const {
        if (!WEIGHTED) return {table[at], 0};
        return {(u64)table[range + at] << 32 | table[at], words == 3 ? table[2 * range + at] : 0};
    }

    __device__ static float estimate(FixedSum sum) {
        if (!WEIGHTED) return (float)sum.low;
        return ((float)sum.high * 0x1p64f + (float)sum.low) * (float)FIXED_UNIT;
    }

    __device__ static double value(FixedSum sum) {
        return WEIGHTED ? to_double(sum) : (double)sum.low;
    }

    __device__ void add_at(u32 at, u32 range, u32 words, u32 row) const {
        if (WEIGHTED) {
            u32* const high = words == 3 ? table + 2 * range + at : nullptr;
            add_to_words(table + at, table + range + at, high, rows.weights[row]);
        } else {
            atomicAdd(table + at, 1);
        }
    }

    // Offers the candidates of a table of whole words. `node_at(i)` is the node of an element, or NO_NODE.
    template <class NodeAt>
    __device__ void offer_words(u32 source, u32 degree, u32 size, const Layout& layout, NodeAt node_at) {
        for (u32 base = 0; base < size; base += THREADS) {
            const u32 at = base + threadIdx.x;
            const u32 node = at < size ? node_at(at) : NO_NODE;
            FixedSum sum = {0, 0};
            bool has = node != NO_NODE && node != source;
            if (has) {
                sum = sum_at(at, layout.range, layout.words);
                has = (sum.low | sum.high) != 0 &&
                      may_reach(measure, estimate(sum), degree, graph.degree(node), least());
            }
            if (__syncthreads_or(has)) offer(has, value(sum), source, degree, node);
        }
    }

    // Offers the candidates of a table with several counts in a word.
    __device__ void offer_counts(u32 source, u32 degree, u32 first, u32 last, u32 bits) {
        const u32 counts = 32 / bits, mask = (1u << bits) - 1;
        const u32 words = (last - first + counts - 1) / counts;
        for (u32 base = 0; base < words; base += THREADS) {
            const u32 word = base + threadIdx.x < words ? table[base + threadIdx.x] : 0;
            const u32 node = first + (base + threadIdx.x) * counts;
            const float bound = least();
            u32 candidates = 0;
            for (u32 i = 0; i < counts && word >> i * bits != 0; i++) {
                const u32 count = word >> i * bits & mask;
                if (count != 0 && node + i != source &&
                    may_reach(measure, (float)count, degree, graph.degree(node + i), bound)) {
                    candidates |= 1u << i;
                }
            }
            if (!__syncthreads_or(candidates)) continue;
            for (u32 i = 0; i < counts; i++) {
                offer(candidates >> i & 1, (double)(word >> i * bits & mask), source, degree, node + i);
            }
        }
    }

    __device__ bool search_hashed(u32 source, u32 degree, const Layout& layout) {
        u32* const keys = table;
        table += layout.range;
        const CountTable slots(keys, table, layout.range);
        slots.clear(threadIdx.x, THREADS);
        for (u32 i = threadIdx.x; i < (layout.words - 1) * layout.range; i += THREADS) table[layout.range + i] = 0;
        __syncthreads();
        const bool goes_on =
            for_each_wedge<WEIGHTED>(graph, weights, rows, source, 0, graph.nodes, poll, [&](u32 end, u32 row) {
                add_at(slots.slot_of(end), layout.range, layout.words, row);
            });
        if (goes_on) {
            offer_words(source, degree, layout.range, layout, [&](u32 at) { return keys[at]; });
        }
        table -= layout.range;
        return goes_on;
    }

    __device__ bool search_range(u32 source, u32 degree, const Layout& layout, u32 first, u32 last) {
        __syncthreads();
        const u32 counts = 32 / layout.bits;
        if (WEIGHTED) {
            for (u32 i = threadIdx.x; i < layout.words * layout.range; i += THREADS) table[i] = 0;
        } else {
            for (u32 i = threadIdx.x; i < (last - first + counts - 1) / counts; i += THREADS) table[i] = 0;
        }
        __syncthreads();
        const bool goes_on =
            for_each_wedge<WEIGHTED>(graph, weights, rows, source, first, last, poll, [&](u32 end, u32 row) {
                const u32 at = end - first;
                if (WEIGHTED || counts == 1) {
                    add_at(at, layout.range, layout.words, row);
                } else {
                    const u32 shift = counts == 4 ? 2 : 1;
                    atomicAdd(table + (at >> shift), 1u << (at & (counts - 1)) * layout.bits);
                }
            });
        if (!goes_on) return false;
        if (WEIGHTED || counts == 1) {
            const u32 size = last - first;
            offer_words(source, degree, size, layout, [&](u32 at) { return first + at; });
        } else {
            offer_counts(source, degree, first, last, layout.bits);
        }
        return true;
    }

    // Share `share` of `shares` of a source. False once the request is cancelled.
    __device__ bool run(u32 source, u64 wedges, u32 share, u32 shares) {
        const u32 degree = graph.degree(source);
        const Layout layout = layout_of<WEIGHTED>(graph.nodes, table_words, degree, wedges);
        if (layout.is_hashed) return search_hashed(source, degree, layout);
        const u32 end = (u32)((u64)layout.parts * (share + 1) / shares);
        for (u32 part = (u32)((u64)layout.parts * share / shares); part < end; part++) {
            const u32 first = part * layout.range;
            const u32 last = graph.nodes - first < layout.range ? graph.nodes : first + layout.range;
            if (!search_range(source, degree, layout, first, last)) return false;
        }
        return true;
    }
};

// Writes the best candidates of a share, with NO_NODE after the last.
static __device__ void write_share(const BlockTopK<THREADS>& best, u32 wanted, double* scores, u32* similar_nodes) {
    const u32 count = best.state->count;
    for (u32 i = threadIdx.x; i < wanted; i += THREADS) {
        scores[i] = i < count ? __longlong_as_double(best.scores[i]) : 0;
        similar_nodes[i] = i < count ? best.nodes[i] : NO_NODE;
    }
}

// Writes the best candidates, and after them the first other nodes, whose score is 0.
static __device__ void write_all(
    const BlockTopK<THREADS>& best, u32 source, u32 wanted, double* scores, u32* similar_nodes) {
    __shared__ u32 found[33]; // a bit for each of the nodes 0 to `wanted`, at most 1024
    const u32 count = best.state->count;
    for (u32 i = threadIdx.x; i < count; i += THREADS) {
        scores[i] = __longlong_as_double(best.scores[i]);
        similar_nodes[i] = best.nodes[i];
    }
    if (count == wanted) return;
    if (threadIdx.x < 33) found[threadIdx.x] = 0;
    __syncthreads();
    for (u32 i = threadIdx.x; i <= count; i += THREADS) {
        const u32 node = i < count ? best.nodes[i] : source;
        if (node <= wanted) atomicOr(&found[node / 32], 1u << node % 32);
    }
    __syncthreads();
    for (u32 node = threadIdx.x; node <= wanted; node += THREADS) {
        if (found[node / 32] >> node % 32 & 1) continue;
        u32 before = node - __popc(found[node / 32] & ((1u << node % 32) - 1));
        for (u32 word = 0; word < node / 32; word++) before -= __popc(found[word]);
        if (count + before < wanted) {
            scores[count + before] = 0;
            similar_nodes[count + before] = node;
        }
    }
}

// The source of a share: the last whose first share is not after it.
static __device__ u32 source_of(const u64* share_offsets, u32 count, u64 share) {
    u32 source = 0, end = count;
    while (source + 1 < end) {
        const u32 middle = source + (end - source) / 2;
        if (share_offsets[middle] <= share) {
            source = middle;
        } else {
            end = middle;
        }
    }
    return source;
}

template <bool WEIGHTED>
static __device__ void search_all(
    const Graph& graph, const u64* weights, u32 measure, u32 table_words, u32 capacity, u32 wanted, u32 count,
    const u32* sources, const u64* wedges, const u64* share_offsets, u64* next, double* scores, u32* similar_nodes,
    double* more_scores, u32* more_nodes, CancelSignal signal) {
    __shared__ Rows rows;
    __shared__ TopKState state;
    __shared__ u64 taken;
    __shared__ u32 at;
    BlockTopK<THREADS> best(block_memory, &state, capacity, wanted);
    CancelPoll poll = {signal, 0};
    Search<WEIGHTED> search = {graph, weights, measure, table_words, (u32*)block_memory + 3 * capacity, rows, best, poll};
    const u64 total = share_offsets[count];
    for (;;) {
        best.clear();
        if (threadIdx.x == 0) {
            taken = poll.is_cancelled() ? total : atomicAdd(next, 1);
            at = source_of(share_offsets, count, taken);
        }
        __syncthreads();
        const u64 share = taken;
        if (share >= total) return;
        const u64 first = share_offsets[at], end = share_offsets[at + 1];
        const u32 source = sources[at];
        if (!search.run(source, wedges[at], (u32)(share - first), (u32)(end - first))) return;
        best.finish();
        if (end - first == 1) {
            write_all(best, source, wanted, scores + (u64)at * wanted, similar_nodes + (u64)at * wanted);
        } else if (share == first) {
            write_share(best, wanted, scores + (u64)at * wanted, similar_nodes + (u64)at * wanted);
        } else {
            const u64 more = (share - at - 1) * wanted; // each source before has one share that is not here
            write_share(best, wanted, more_scores + more, more_nodes + more);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    similarity_search(u32 nodes, const u32* offsets, const u32* columns, u32 measure, u32 table_words, u32 capacity,
                      u32 wanted, u32 count, const u32* sources, const u64* wedges, const u64* share_offsets, u64* next,
                      double* scores, u32* similar_nodes, double* more_scores, u32* more_nodes,
                      const volatile u32* flag, u32* cancelled) {
    search_all<false>({nodes, offsets, columns}, nullptr, measure, table_words, capacity, wanted, count, sources, wedges,
                      share_offsets, next, scores, similar_nodes, more_scores, more_nodes, {flag, cancelled});
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    similarity_search_weighted(u32 nodes, const u32* offsets, const u32* columns, u32 measure, u32 table_words,
                               u32 capacity, u32 wanted, u32 count, const u32* sources, const u64* wedges,
                               const u64* share_offsets, u64* next, double* scores, u32* similar_nodes,
                               double* more_scores, u32* more_nodes, const u64* weights, const volatile u32* flag,
                               u32* cancelled) {
    search_all<true>({nodes, offsets, columns}, weights, measure, table_words, capacity, wanted, count, sources, wedges,
                     share_offsets, next, scores, similar_nodes, more_scores, more_nodes, {flag, cancelled});
}

// A block for each source that several blocks have searched.
extern "C" __global__ void __launch_bounds__(THREADS)
    similarity_merge(u32 capacity, u32 wanted, u32 count, const u32* sources, const u64* share_offsets, double* scores,
                     u32* similar_nodes, const double* more_scores, const u32* more_nodes) {
    __shared__ TopKState state;
    BlockTopK<THREADS> best(block_memory, &state, capacity, wanted);
    for (u32 at = blockIdx.x; at < count; at += gridDim.x) {
        const u64 first = share_offsets[at], more = share_offsets[at + 1] - first - 1;
        if (more == 0) continue;
        best.clear();
        const auto offer_all = [&](u64 size, const double* scores, const u32* nodes) {
            for (u64 base = 0; base < size; base += THREADS) {
                const u64 i = base + threadIdx.x;
                const u32 node = i < size ? nodes[i] : NO_NODE;
                best.offer(node != NO_NODE, node != NO_NODE ? __double_as_longlong(scores[i]) : 0, node);
            }
        };
        double* const own_scores = scores + (u64)at * wanted;
        u32* const own_nodes = similar_nodes + (u64)at * wanted;
        offer_all(wanted, own_scores, own_nodes);
        offer_all(more * wanted, more_scores + (first - at) * wanted, more_nodes + (first - at) * wanted);
        best.finish();
        write_all(best, sources[at], wanted, own_scores, own_nodes);
    }
}
