"""pandas and polars on the rows of `cargo bench --bench cpu_kernels -- aggregate`: all aggregates, and sums alone.

    python benches/peers/aggregate_cpu_peers.py     needs pandas and polars; RAYON_NUM_THREADS and POLARS_MAX_THREADS set threads
"""

import statistics
import time

import numpy
import pandas
import polars

ROWS = 10_000_000


def median_ms(work, runs=3):
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


print(f"pandas {pandas.__version__}, polars {polars.__version__} with {polars.thread_pool_size()} threads")
for groups in [1, 1_000, 1_000_000, 10_000_000]:
    random = numpy.random.default_rng(42)
    dense = random.integers(0, groups, ROWS)
    values = random.integers(0, 1 << 20, ROWS) / 1024.0
    for name, keys in [("dense", dense), ("spread", dense * numpy.int64(-0x61c8864680b583eb))]:
        frame = pandas.DataFrame({"key": keys, "value": values})
        columns = polars.DataFrame({"key": keys, "value": values})
        value = polars.col("value")
        for aggregates, names in [("sum", ["sum"]), ("all", ["sum", "min", "max", "count", "mean"])]:
            expressions = [getattr(value, aggregate)().alias(aggregate) for aggregate in names]
            by_pandas = median_ms(lambda: frame.groupby("key")["value"].agg(names))
            by_polars = median_ms(lambda: columns.group_by("key").agg(expressions).sort("key"))
            print(f"aggregate {name} {aggregates} rows={ROWS} groups={groups} pandas_ms={by_pandas:.1f} polars_ms={by_polars:.1f}")
