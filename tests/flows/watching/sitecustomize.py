"""On the path of the smoke pipeline's processes: notes which sections of the parameters a stage reads, in a file for each process."""

import atexit
import json
import os
import sys
from pathlib import Path

if sys.orig_argv[1:3] == ["-m", "cadiff.stages"] and "CADIFF_READS" in os.environ:
    from cadiff.params import RESULT_KEYS, Params

    fields, read, plain, digest_of = set(Params.model_fields), set(), Params.__getattribute__, Params.digest_of

    def noting(self: Params, name: str) -> object:
        if name in fields and not str(sys._getframe(1).f_globals.get("__name__")).startswith(("cadiff.params", "pydantic")):
            read.add(name)
        return plain(self, name)

    def digesting(self: Params, *sections: str) -> str:
        read.update(sections if set(sections) != set(RESULT_KEYS) else ())  # of all: nothing that a result depends on
        return digest_of(self, *sections)

    def write() -> None:
        folder = Path(os.environ["CADIFF_READS"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sys.orig_argv[3]}-{os.getpid()}.json").write_text(json.dumps(sorted(read)))

    Params.__getattribute__, Params.digest_of = noting, digesting  # type: ignore[method-assign]
    atexit.register(write)
