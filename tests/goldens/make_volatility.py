"""Writes the goldens of `temporal/volatility-analysis`: tests/goldens/volatility.json, by the package arch.

    pip install -r tests/goldens/requirements.txt && python tests/goldens/make_volatility.py

arch's optimizer stops early and may end in a lower one of several maxima, so each model is fitted with a tight tolerance
from arch's own start and from others, and the best fit that keeps the constraint alpha + beta <= 1 is written.
`log_likelihood_of_arch` is that of a plain `fit()`. `is_interior` says that no parameter is at a bound, where the estimates
are held to 1e-4.
"""

import json
import pathlib

import numpy
from arch import arch_model

HERE = pathlib.Path(__file__).parent
HORIZON = 6
random = numpy.random.default_rng(17)


def simulate(n, alpha, beta, mu=0.0, scale=1.0, freedom=None):
    """A series of variance `scale` squared, with normal or Student's t innovations."""
    burn = 300
    if freedom is None:
        innovations = random.standard_normal(n + burn)
    else:
        innovations = random.standard_t(freedom, n + burn) * numpy.sqrt((freedom - 2) / freedom)
    omega, variance, square, returns = 1 - alpha - beta, 1.0, 1.0, []
    for innovation in innovations:
        variance = omega + alpha * square + beta * variance
        residual = numpy.sqrt(variance) * innovation
        square = residual**2
        returns.append(residual)
    return mu + scale * numpy.array(returns[burn:])


def with_break(n):
    returns = random.standard_normal(n)
    returns[n // 2 :] *= 2.5
    return returns


def with_outliers(n):
    returns = random.standard_normal(n)
    returns[[n // 5, n // 2]] *= 12
    return returns


def golden(name, returns, mean):
    returns = numpy.round(returns, 12)
    # arch's optimizer wants a variance around 1, and its estimates scale.
    unit = returns.std()
    model = arch_model(returns / unit, mean=mean.capitalize(), vol="GARCH", p=1, q=1, rescale=False)
    quiet = {"disp": "off", "show_warning": False, "options": {"maxiter": 2000}}
    plain = model.fit(disp="off", show_warning=False)
    starts = [None, plain.params]
    for persistence in (0.1, 0.5, 0.8, 0.95, 0.99):
        for alpha in (0.02, 0.08, 0.2):
            alpha = min(alpha, 0.9 * persistence)
            start = [1 - persistence, alpha, persistence - alpha]
            starts.append(numpy.array([(returns / unit).mean(), *start] if mean == "constant" else start))
    fits = [model.fit(starting_values=start, tol=1e-14, **quiet) for start in starts]
    fits += [model.fit(starting_values=fit.params, tol=1e-15, **quiet) for fit in fits]
    feasible = [fit for fit in fits if fit.params["alpha[1]"] + fit.params["beta[1]"] <= 1.0 + 1e-12]
    best = max(feasible, key=lambda fit: fit.loglikelihood)
    omega, alpha, beta = (float(best.params[key]) for key in ("omega", "alpha[1]", "beta[1]"))
    forecast = best.forecast(horizon=HORIZON).variance.values[-1]
    shift = len(returns) * numpy.log(unit)
    return {
        "name": name,
        "mean": mean,
        "returns": returns.tolist(),
        "mu": float(best.params["mu"]) * unit if mean == "constant" else 0.0,
        "omega": omega * unit**2,
        "alpha": alpha,
        "beta": beta,
        "log_likelihood": float(best.loglikelihood - shift),
        "log_likelihood_of_arch": float(plain.loglikelihood - shift),
        "arch_is_feasible": bool(plain.params["alpha[1]"] + plain.params["beta[1]"] <= 1.0),
        "is_interior": bool(omega > 1e-6 and alpha > 1e-5 and beta > 1e-5 and alpha + beta < 1 - 1e-5),
        "volatility": float(best.conditional_volatility[-1]) * unit,
        "forecast": (forecast * unit**2).tolist(),
    }


def goldens():
    for mean in ("constant", "zero"):
        mu = 0.07 if mean == "constant" else 0.0
        yield golden("typical", simulate(600, 0.1, 0.85, mu), mean)
        yield golden("daily returns", simulate(750, 0.07, 0.91, mu / 100, 0.01), mean)
        yield golden("low persistence", simulate(500, 0.3, 0.3, mu), mean)
        yield golden("high persistence", simulate(900, 0.05, 0.945, mu), mean)
        yield golden("ARCH", simulate(500, 0.5, 0.0, mu), mean)
        yield golden("fat tails", simulate(600, 0.12, 0.8, mu, 30.0, freedom=4), mean)
        yield golden("short", simulate(60, 0.2, 0.6, mu), mean)
        yield golden("noise", random.standard_normal(400), mean)
        yield golden("break", with_break(400), mean)
        yield golden("outliers", with_outliers(400), mean)
        for index in range(6):
            alpha = random.uniform(0.05, 0.25)
            yield golden(f"random {index}", simulate(500, alpha, random.uniform(0.6, 0.98) - alpha, mu), mean)


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in goldens())
    (HERE / "volatility.json").write_text("[\n" + lines + "\n]\n")
