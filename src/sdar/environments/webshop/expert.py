"""The expert: knows the goal's product, and finds, configures and buys it."""

from __future__ import annotations

from sdar.environments.webshop.goals import Goal
from sdar.environments.webshop.shop import PAGE_SIZE, Session, Shop


def purchase_plan(shop: Shop, goal: Goal, max_turns: int) -> list[str] | None:
    """The actions; None if they take too many turns or, due to a quirk of the reward, do not score 1."""
    product = shop.products[goal.asin]
    values = [option[1] if isinstance(option, tuple) else option for option in goal.options]
    for query in (product.title, f"{product.title} {product.query}", goal.instruction):
        hits = list(shop.search(query.lower()))
        if goal.asin not in hits:
            continue
        pages = hits.index(goal.asin) // PAGE_SIZE
        plan = [f"search[{query.lower()}]", *["click[next >]"] * pages, f"click[{goal.asin.lower()}]"]
        plan += [f"click[{value}]" for value in values] + ["click[buy now]"]
        if len(plan) > max_turns:
            continue
        session = Session(shop, goal)
        for action in plan:
            session.step(action)
        return plan if session.done and session.score == 1.0 else None
    return None
