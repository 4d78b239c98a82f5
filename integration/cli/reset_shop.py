"""The shop of `cli.real_shop` with a saga that can take a wrong turn.

python -m kasaga orchestrator cli.reset_shop:app
python -m cli.reset_shop
"""

from __future__ import annotations

from cli.real_shop import NAMESPACE, SOON_STUCK, Approval, GoodsContract, Order, service
from kasaga import App, SagaContext, saga


@saga("twice", signals={"approved": Approval})
async def twice(ctx: SagaContext, order: Order) -> str:
    """Takes goods twice, and waits for somebody."""
    goods = ctx.use(GoodsContract, undo_retry=SOON_STUCK)
    taken = [await goods.take(order), await goods.take(order)]
    approved = await ctx.signal("approved", Approval)
    return f"{len(taken)} for {approved.by}"


app = App(NAMESPACE, sagas=[twice], participants=[GoodsContract])

if __name__ == "__main__":
    service.run()
