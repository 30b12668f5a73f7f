"""Where tests find their helpers.

The repository's root stands last on the path: `tests.support` and its like are found, and the packages are those that are
installed. After `pip install .` tests therefore run against the built wheel, after `pip install -e .` against the sources.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
