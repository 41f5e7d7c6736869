"""Vault: the key tree, and the only place where anything sealed is opened."""

from crmbridge.services.vault.keys import SealBroken, SealingKeys, TenantKeys, credential_aad, write_aad
from crmbridge.services.vault.master import (
    EnvKeyProvider,
    FileKeyProvider,
    KeyProvider,
    MasterKeyMissing,
    new_master_key,
    provider_from,
    write_master_key_file,
)
from crmbridge.services.vault.model import KeyStatus, RewrapProgress
from crmbridge.services.vault.service import Vault

__all__ = [
    "EnvKeyProvider",
    "FileKeyProvider",
    "KeyProvider",
    "KeyStatus",
    "MasterKeyMissing",
    "RewrapProgress",
    "SealBroken",
    "SealingKeys",
    "TenantKeys",
    "Vault",
    "credential_aad",
    "new_master_key",
    "provider_from",
    "write_aad",
    "write_master_key_file",
]
