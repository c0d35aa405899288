"""The rows of `benches/cuda` as a user of torch would write them, for the same run on the same machine.

    gpu-bundle/run.sh peers        the rows of ours, then these

Needs torch with CUDA. Each time is the median of many calls with a synchronize at the end of each, as ours are; "pinned"
keeps inputs and output in pinned memory that was made once.
"""

import statistics
import threading
import time

import torch


def times(work, count):
    for _ in range(max(count // 10, 3)):
        work()
    took = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        took.append((time.perf_counter() - start) * 1e6)
    return took


def row(name, took):
    took = sorted(took)
    print(f"{name:<42}{statistics.median(took):>8.1f}{took[int(len(took) * 0.99)]:>8.1f}")


def pageable(length):
    x, y = torch.full((length,), 1.0), torch.full((length,), 2.0)
    return lambda: torch.add(y.to("cuda"), x.to("cuda"), alpha=2.0).cpu()


def pinned(length):
    x, y = (torch.full((length,), value).pin_memory() for value in (1.0, 2.0))
    out = torch.empty(length).pin_memory()
    x_there, y_there = torch.empty(length, device="cuda"), torch.empty(length, device="cuda")

    def work():
        x_there.copy_(x, non_blocking=True)
        y_there.copy_(y, non_blocking=True)
        y_there.add_(x_there, alpha=2.0)
        out.copy_(y_there, non_blocking=True)
        torch.cuda.current_stream().synchronize()

    return work


def many(threads, each):
    """Requests a second of this many threads, each with a stream of its own."""
    start = threading.Barrier(threads + 1)

    def run():
        with torch.cuda.stream(torch.cuda.Stream()):
            work = pinned(1024)
            for _ in range(100):
                work()
            start.wait()
            for _ in range(each):
                work()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    return threads * each / (time.perf_counter() - begun)


def main():
    print(f"\ntorch {torch.__version__}, {torch.cuda.get_device_name()}, µs{'p50':>17}{'p99':>8}")
    row("torch: saxpy 1024, from pageable", times(pageable(1024), 10_000))
    row("torch: saxpy 1024, pinned", times(pinned(1024), 10_000))
    row("torch: saxpy 1M, from pageable", times(pageable(1 << 20), 300))
    row("torch: saxpy 1M, pinned", times(pinned(1 << 20), 500))
    print(f"torch: saxpy 1024, pinned, 8 threads      {many(8, 2_000):>8.0f} requests/s")


main()
