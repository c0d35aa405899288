// Strongly connected components.
//
// Each node has a key, a pseudorandom permutation of its number, and two marks: the highest key among the nodes that
// lead to it, and among those that it leads to. Rounds over the arcs raise the marks until nothing changes. Where the
// two marks of a node are the same, that node is on a cycle with it, and all nodes with these marks are one component.
// An arc between nodes with other marks is in no component, so the nodes that remain fall apart into pieces, and the
// same is done in each of them at once, with other keys, until no node remains. At least one component of each piece is
// found in each pass; keys that are random make the number of passes about logarithmic, also for long chains of
// components.
//
// A mark names a node that leads here, or that this node leads to. What leads to a node leads to the nodes that it
// leads to, so a node also takes the mark of the node that its own mark names, and raises the other mark of that node.
// This leads on by many arcs at a time, as pointer jumping does, along chains and around cycles. Where both marks of a
// node are the same for a while, the node that they name is in its component for good: it becomes the representative,
// and the two have their marks in common from then on. So a large component takes few rounds, however deep it is.
//
//   strong_components_start    the first keys; every node remains
//   strong_components_search   a cooperative launch: up to `rounds` rounds
//   strong_components_lowest   the lowest node of each node's component
//
// Graph: CSR by out-arcs, row offsets u32[n + 1], columns u32[arcs], every column below n; n is at least 1. `nodes` is
// uint4[n], `representative` and `lowest_of` u32[n], `list` u32[2 * n]; they need not be cleared. The host zeroes
// `progress`, whose `remaining` strong_components_start sets. The marks at the end of a pass are the same whatever the
// order of the threads, and so is the result.
//
// Source: Alabandi, Sands, Biros, Burtscher, "A GPU Algorithm for Detecting Strongly Connected Components", SC 2023.

#include "load_balance.cuh"

constexpr u32 THREAD_ARCS = 16; // arcs that one thread follows
constexpr u32 UNROLL = 4;       // arcs that a thread follows at once, to hide the latency of reads
constexpr u32 ROUNDS_PER_POLL = 16; // rounds, of which one polls the cancel flag

// The progress of a search; src/kernels/graph/connected_components/strong_cuda.rs has the same layout.
struct Progress {
    u64 next_remaining;     // nodes listed for the next pass
    u32 remaining;          // nodes of this pass
    u32 pass;               // passes that have ended
    u32 changed;            // 1: a mark was raised in this round
    u32 is_settled;         // 1: no mark was raised in the last round
    u32 taken;              // chunks that blocks took beyond their first
    u32 blocks_done;        // blocks that wait at the barrier
    u32 barrier_generation; // how often all blocks have passed it
    u32 cancelled;          // 1: the request is cancelled, and nothing here has a meaning any more
    u32 stopped;            // 1: it was cancelled before the last barrier, so that all blocks end at the same round
    u32 rounds;             // rounds so far
};

// A node that remains has two different marks at the end of a pass, and they name its piece in the next one. A node
// whose component was found has the same node twice instead: the one that all nodes of the component name.
struct __align__(16) Node {
    u32 from, to;             // the highest key among the nodes that lead here, and that this one leads to
    u32 piece_from, piece_to; // these marks at the end of the last pass
};

// The key of a node in a pass, and its inverse: a bijection of 32-bit words (Wellons, "Prospecting for Hash Functions",
// 2018).
static __device__ u32 pass_salt(u32 pass) { return pass * 0x9e3779b9u; }

static __device__ u32 key_of(u32 node, u32 pass) {
    u32 x = node ^ pass_salt(pass);
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

static __device__ u32 node_of(u32 key, u32 pass) {
    u32 x = (key ^ key >> 16) * 0x43021123u;
    x = (x ^ x >> 15 ^ x >> 30) * 0x1d69e2a5u;
    return (x ^ x >> 16) ^ pass_salt(pass);
}

struct Search {
    u32 n;
    const u32 *row, *column;
    Node* nodes;
    u32* representative; // the highest key that is known of a node of the same component
    u32* list;      // the nodes that remain in this pass, and in the next one
    u32* lowest_of; // the lowest node of the component that a node names
    Progress* progress;
    const volatile u32* cancel;

    __device__ CancelSignal cancel_signal() const { return CancelSignal{cancel, &progress->cancelled}; }

    __device__ u32* list_of(u32 pass) const { return list + (pass % 2 == 0 ? 0 : n); }

    // Returns the key of the representative of a node. Those that it had before get the same one.
    __device__ u32 representative_of(u32 node, const Node& marks, u32 pass) const {
        const u32 old = representative[node];
        u32 key = marks.from == marks.to ? max(old, marks.from) : old;
        key = max(key, representative[node_of(key, pass)]);
        if (key != old) {
            atomicMax(&representative[node], key);
            atomicMax(&representative[node_of(old, pass)], key);
        }
        return key;
    }

    // Raises the marks over arcs from, from + stride, ... of a node. Returns whether any was raised.
    __device__ bool follow(const WorkItem& work, u32 pass, u32 from, u32 stride) const {
        const Node own = nodes[work.item];
        const u32 before = node_of(own.from, pass), after = node_of(own.to, pass);
        const u32 member = node_of(representative_of(work.item, own, pass), pass);
        const Node first = nodes[before], last = nodes[after], common = nodes[member];
        const u32 mark = max(own.from, max(first.from, common.from));
        u32 to = max(own.to, max(last.to, common.to));
        bool raised = false;
        auto raise = [&](u32 old_mark, u32 new_mark, u32* to_raise) {
            if (old_mark >= new_mark) return;
            atomicMax(to_raise, new_mark);
            raised = true;
        };
        for (u32 k = from; k < work.arcs; k += UNROLL * stride) {
            u32 ends[UNROLL];
            Node others[UNROLL];
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                ends[i] = k + i * stride < work.arcs ? column[work.first + k + i * stride] : work.item;
                others[i] = nodes[ends[i]];
            }
#pragma unroll
            for (u32 i = 0; i < UNROLL; i++) {
                if (others[i].piece_from != own.piece_from || others[i].piece_to != own.piece_to) continue;
                raise(others[i].from, mark, &nodes[ends[i]].from);
                to = max(to, others[i].to);
            }
        }
        raise(own.from, mark, &nodes[work.item].from);
        raise(own.to, to, &nodes[work.item].to);
        raise(last.from, mark, &nodes[after].from);
        raise(first.to, to, &nodes[before].to);
        raise(common.from, mark, &nodes[member].from);
        raise(common.to, to, &nodes[member].to);
        return raised;
    }

    // A round over the arcs of the nodes that remain. All blocks call it.
    __device__ void raise_marks() const {
        const u32 pass = progress->pass;
        const u32* remaining = list_of(pass);
        bool raised = false;
        balance_load(progress->remaining, row[n] / n <= THREAD_ARCS, &progress->taken,
            cancel_signal(),
            [&](bool valid, u64 piece) {
                WorkItem work = {0, 0, 0, 0};
                if (!valid) return work;
                work.item = remaining[piece];
                work.first = row[work.item];
                work.arcs = row[work.item + 1] - work.first;
                if (work.arcs <= THREAD_ARCS) {
                    raised |= follow(work, pass, 0, 1);
                    work.arcs = 0;
                }
                return work;
            },
            [&](const WorkItem& work, bool whole_block) {
                raised |= follow(work, pass, whole_block ? threadIdx.x : lane_id(), whole_block ? BLOCK : 32);
            });
        if (__syncthreads_or(raised) && threadIdx.x == 0) *(volatile u32*)&progress->changed = 1;
    }

    // Names the components that were found, and lists the other nodes for the next pass. All blocks call it.
    __device__ void split() const {
        __shared__ u32 buffers[WARPS][APPEND_BUFFER];
        const u32 pass = progress->pass, remaining = progress->remaining;
        const u32* present = list_of(pass);
        WarpAppendBuffer<u32> next = {buffers[warp_id()], list_of(pass + 1), &progress->next_remaining, 0};
        for (u32 start = blockIdx.x * BLOCK; start < remaining; start += gridDim.x * BLOCK) {
            const bool valid = start + threadIdx.x < remaining;
            const u32 node = valid ? present[start + threadIdx.x] : 0;
            const Node marks = nodes[node];
            const bool is_found = marks.from == marks.to;
            if (valid && is_found) {
                const u32 name = node_of(marks.from, pass);
                nodes[node] = Node{0, 0, name, name};
                // Most nodes of a large component come too late to lower it: a read is cheaper than an atomic.
                if (*(volatile u32*)&lowest_of[name] > node) atomicMin(&lowest_of[name], node);
            } else if (valid) {
                const u32 key = key_of(node, pass + 1);
                nodes[node] = Node{key, key, marks.from, marks.to};
                representative[node] = key;
            }
            next.push(valid && !is_found, node);
        }
        next.flush();
    }

    __device__ void search(u32 rounds) const {
        auto barrier = [&](auto last) {
            grid_barrier(&progress->blocks_done, &progress->barrier_generation, [&] {
                last();
                progress->stopped = *(volatile u32*)&progress->cancelled;
            });
        };
        for (u32 i = 0; i < rounds && progress->remaining != 0 && progress->stopped == 0; i++) {
            raise_marks();
            barrier([&] {
                progress->is_settled = *(volatile u32*)&progress->changed == 0;
                progress->changed = 0;
                progress->taken = 0;
                if (progress->rounds++ % ROUNDS_PER_POLL == 0) cancel_signal().poll_cancel();
            });
            if (progress->is_settled == 0 || progress->stopped != 0) continue;
            split();
            barrier([&] {
                progress->remaining = (u32) * (volatile u64*)&progress->next_remaining;
                progress->next_remaining = 0;
                progress->pass++;
            });
        }
    }
};

// One thread a node.
extern "C" __global__ void __launch_bounds__(256) strong_components_start(
    u32 n, Node* nodes, u32* representative, u32* list, u32* lowest_of, Progress* progress) {
    const u32 node = blockIdx.x * BLOCK + threadIdx.x;
    if (node == 0) progress->remaining = n;
    if (node >= n) return;
    const u32 key = key_of(node, 0);
    nodes[node] = Node{key, key, 0, 0};
    representative[node] = key;
    list[node] = node;
    lowest_of[node] = n;
}

extern "C" __global__ void __launch_bounds__(256, 4) strong_components_search(
    u32 n, const u32* row, const u32* column, Node* nodes, u32* representative, u32* list, u32* lowest_of,
    Progress* progress, const volatile u32* cancel, u32 rounds) {
    Search{n, row, column, nodes, representative, list, lowest_of, progress, cancel}.search(rounds);
}

// One thread a node.
extern "C" __global__ void __launch_bounds__(256) strong_components_lowest(
    u32 n, const Node* nodes, const u32* lowest_of, u32* lowest) {
    const u32 node = blockIdx.x * BLOCK + threadIdx.x;
    if (node < n) lowest[node] = lowest_of[nodes[node].piece_from];
}
