"""Types many `mergekit-yaml` commands in one process: `python mergekit_driver.py COMMANDS.json`.

A process of its own, since mergekit and what it brings need not share ours. The file is a list of argument lists.
"""

import json
import sys
from pathlib import Path

from mergekit.scripts.run_yaml import main

for arguments in json.loads(Path(sys.argv[1]).read_text()):
    main(arguments, standalone_mode=False)
