"""Answers about a dictionary's features."""

import numpy as np
from starlette.responses import Response

from rl_interp.analysis.episodes import attributions, features, values
from rl_interp.analysis.sae.feature import as_json
from rl_interp.analysis.sae.names import Named, name_feature
from rl_interp.app.explorer.asked import Asked
from rl_interp.app.explorer.wire import answer, array, png
from rl_interp.core.errors import UserError

_LISTED = 60
"""Features of a moment that are listed."""


def feature_list(asked: Asked) -> Response:
    """The features that fire in a moment, at one place of the frame or anywhere."""
    found = asked.opened()
    sae, moment = found.dictionary, asked.moment()
    with found.agent(asked.wanted) as loaded:
        changes = asked.changes(loaded)
        fired = features(sae, values(loaded, [moment], sae.hook, changes))[0]
        discrete = loaded.env.action_kind == "discrete"
        effects = attributions(loaded, moment, sae.hook, sae, changes) if discrete else None  # of no chosen action
        where = found.places(loaded, moment, sae.hook)
    place = asked.body.get("place")
    there = fired.max(0) if place is None else fired[min(max(0, asked.number("place")), len(fired) - 1)]
    active = np.flatnonzero(there > 0)
    rank = np.abs(effects[active]) if effects is not None and asked.body.get("effects") else there[active]
    listed = active[np.argsort(-rank, kind="stable")][:_LISTED]
    return answer(
        {
            "firing": len(active),
            "features": [
                {
                    "feature": int(i),
                    "activation": float(there[i]),
                    "effect": None if effects is None else float(effects[i]),
                }
                for i in listed
            ],
            **where,
        }
    )


def feature(asked: Asked) -> Response:
    """Where one feature fires in a moment."""
    found = asked.opened()
    sae, moment, number = found.dictionary, asked.moment(), asked.number("feature")
    if not 0 <= number < sae.sae.d_sae:
        raise UserError(f"feature {number} was asked for; {sae.run.path} has 0 to {sae.sae.d_sae - 1}.")
    with found.agent(asked.wanted) as loaded:
        fired = features(sae, values(loaded, [moment], sae.hook, asked.changes(loaded)))[0, :, number]
        where = found.places(loaded, moment, sae.hook)
    return answer({"values": array(fired), **where})


def described(asked: Asked) -> Response:
    """All that is known of one feature, with the screens of its strongest moments."""
    found = asked.opened()
    known = found.catalogue.describe(asked.number("feature"))
    peaks = [
        {"episode": peak.episode, "step": peak.step, "activation": peak.activation, "png": png(peak.screen)}
        for peak in known.peaks
    ]
    return answer(as_json(known) | {"peaks": peaks, "hook": found.dictionary.hook})


def named(asked: Asked) -> Response:
    """Give a feature a name and a note."""
    sae, number = asked.opened().dictionary, asked.number("feature")
    if not 0 <= number < sae.sae.d_sae:
        raise UserError(f"feature {number} was to be named; {sae.run.path} has 0 to {sae.sae.d_sae - 1}.")
    given = Named(asked.text("name", 200).strip(), asked.text("note", 4000).strip())
    name_feature(sae.run, number, given)
    return answer({"feature": number, "name": given.name, "note": given.note})
