# SPDX-License-Identifier: GPL-2.0-only
"""`python -m emuv_shim` is `emuv`."""

import sys

from emuv_shim._start import emuv

if __name__ == "__main__":
    sys.exit(emuv())
