"""Runs a library of npm: the folder in NPM_FOLDER holds its node_modules."""

import json
import os
import subprocess


def call(code, *arguments):
    """What the module's `code` hands to `give`; it sees the arguments as `args`."""
    script = (
        f"const args = {json.dumps(arguments)}; const give = (v) => process.stdout.write(JSON.stringify(v));\n{code}"
    )
    ran = subprocess.run(
        ["node", "--input-type=module", "--eval", script],
        cwd=os.environ["NPM_FOLDER"],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(ran.stdout)
