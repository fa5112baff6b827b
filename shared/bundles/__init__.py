"""Bundles: a folder of code as one signed archive, named by its content, so that workers need no shared disk.

`archive` packs and unpacks, `key` signs and verifies. Where an archive is kept is `ledger`'s business.
"""

from highnoon.shared.bundles.archive import Bundle as Bundle
from highnoon.shared.bundles.archive import pack as pack
from highnoon.shared.bundles.archive import unpack as unpack
from highnoon.shared.bundles.key import ClusterKey as ClusterKey
from highnoon.shared.bundles.key import kept_key as kept_key
from highnoon.shared.bundles.key import key_of as key_of
