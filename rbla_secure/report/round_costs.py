"""Costs of the number of rounds and of band weights at one epsilon, for people and machines."""

from rbla_secure.planning.band_weights import weights_used
from rbla_secure.planning.plan import Plan
from rbla_secure.planning.round_costs import RoundCosts
from rbla_secure.privacy.figures import rounded_up

# Savings below this share of the noise energy are not reported.
_WORTH_IT = 0.01


def round_cost_lines(found: RoundCosts, plan: Plan) -> list[str]:
    """The costs for people, without the table."""
    lines = []
    weights = found.weights
    if weights is not None and (weights.used or weights.energy < 1 - _WORTH_IT):
        saved = (
            f"{1 - weights.energy:.1%} less noise energy in an average than equal weights at epsilon {rounded_up(found.epsilon)}; the noise "
            f"energy of equal weights costs epsilon {rounded_up(weights.epsilon)} with them"
        )
        if weights.used:
            lines.append(
                f"rank bands are weighted ({weights_used(plan.promises, plan.band_weights)}): {saved}"
            )
        else:
            lines.append(f"advice: privacy.band-weights=holders leaves {saved}")
    lines.append(
        "advice: at one epsilon the signal to noise of a round falls with the square root of their number, and that of all "
        "rounds together does not rise with it: take no more rounds than training has use for"
    )
    return lines


def round_cost_table(found: RoundCosts, plan: Plan) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of the table of rounds."""
    columns = ["rounds", "noise-multiplier", *(str(band) for band in plan.bands)]
    rows = [
        [
            str(each.rounds),
            rounded_up(each.noise_multiplier),
            *(f"{ratio:.3f}" for ratio in each.signal_to_noise),
        ]
        for each in found.rounds
    ]
    title = f"fewer rounds at epsilon {rounded_up(found.epsilon)}: noise needed, and signal to noise of one round by band"
    return title, columns, rows


def round_cost_object(found: RoundCosts, plan: Plan) -> dict[str, object]:
    """The costs for machines."""
    weights = found.weights
    return {
        "epsilon": found.epsilon,
        "rounds": [
            {
                "rounds": each.rounds,
                "participations": each.participations,
                "noise_multiplier": each.noise_multiplier,
                "signal_to_noise": list(each.signal_to_noise),
            }
            for each in found.rounds
        ],
        "band_weights": list(plan.band_weights),
        "least_noise_weights": None
        if weights is None
        else {
            "used": weights.used,
            "noise_energy": weights.energy,
            "epsilon_at_equal_noise_energy": weights.epsilon,
        },
    }
