"""Requests and responses of the price list."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from schemas.base import In, Out, patch_model
from schemas.fields import Code, InstantOut, MoneyIn, MoneyOut, Name, Note, Short


class PriceListItemIn(In):
    """A service or product with its price. Bills and treatments that name it copy name and price."""

    code: Annotated[Code, Field(examples=["LAB-FBC"])]
    name: Annotated[Name, Field(examples=["Full blood count"])]
    description: Note | None = None
    category: Annotated[Short, Field(examples=["laboratory"])] | None = None
    unit_price: MoneyIn
    is_active: bool = True


PriceListItemPatch = patch_model(PriceListItemIn, "PriceListItemPatch")


class PriceListItemOut(Out):
    """A service or product with its price. An inactive one cannot be used for new bills and treatments."""

    area: ClassVar[str] = "price_list_item"

    id: int
    code: str
    name: str
    description: str | None
    category: str | None
    unit_price: MoneyOut
    is_active: bool
    created_at: InstantOut
    updated_at: InstantOut
