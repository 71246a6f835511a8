"""How the vault's master keys stand, as the security administrator sees it; `xinglin vault` changes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from engine.vault.sealing import Profile
from web import keys
from web.faults import Fault
from web.openapi import api


@dataclass(frozen=True, slots=True)
class MasterKeyAnswer:
    """一把主密钥，不含密钥本身 / a master key, without the key."""

    purpose: Literal["data", "index"]
    version: int
    profile: Annotated[str, Field(description="aes 或 sm4 / aes or sm4")]
    made_at: datetime
    active_from: Annotated[datetime, Field(description="启用时刻 / when it is first used")]
    wrapped_by: Annotated[
        str, Field(description="外部密钥的标识 / id of the key outside the database that wraps it")
    ]


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    in_use: Annotated[int, Field(description="正在使用的版本 / the version that new keys are wrapped with")]
    master_keys: list[MasterKeyAnswer]


@api.route("GET", "/api/v1/admin/vault", zh="保险库密钥状态", tags=["admin"], errors=[Fault.DATABASE_DOWN])
async def read_vault_keys(request: web.Request) -> VaultAnswer:
    """Each master key: its version, when it was made and came into use. How many data keys each of them wraps
    is counted at the machine: `xinglin vault status`."""
    app = request.app
    rows = await app[keys.POOL].fetch(
        "select purpose, version, profile, made_at, active_from, kek from vault_key order by purpose, version"
    )
    zone = app[keys.ZONE]
    return VaultAnswer(
        app[keys.VAULT].version,
        [
            MasterKeyAnswer(
                row["purpose"],
                row["version"],
                Profile(row["profile"]).name.lower(),
                row["made_at"].astimezone(zone),
                row["active_from"].astimezone(zone),
                row["kek"].hex(),
            )
            for row in rows
        ],
    )
