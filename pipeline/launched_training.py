"""Gradual pruning in processes that a launcher starts, on several GPUs or hosts (docs/scaling.md).

The prune stage writes the job into the run folder and starts the launcher with this module; on further hosts, which see
the same run folder, a user starts it alike:

    accelerate launch --config_file cluster.yaml --machine_rank 1 -m pipeline.launched_training RUN_FOLDER
"""

import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.recovery import LAUNCHED_JOB, LAUNCHED_NETWORK, LAUNCHED_RECORD, save_network, train
from pipeline.run_folder import RunFolder, read_json, write_json
from pipeline.setup import prepare
from pipeline.training.gradual import GradualSettings


def main(folder: Path) -> None:
    """One of the processes; the first one leaves network and record in the run folder."""
    from accelerate import PartialState

    is_first = PartialState().is_main_process  # type: ignore[no-untyped-call]
    run_folder = RunFolder(folder)
    config = RunConfig.model_validate({**(run_folder.stored_config() or {}), "track": None})
    run = prepare(config, run_folder, Reporter(quiet=not is_first))
    job = read_json(run_folder.file(LAUNCHED_JOB))
    settings = GradualSettings(**job["settings"])
    if settings.start == "database":
        student = run.network(run_folder.file("corrected.safetensors"))
    else:
        student = run.copy_of_dense()
    record = train(run, student, settings, job["sparsities"], run_folder.file(job["checkpoint"]))
    if is_first:
        save_network(run, student, LAUNCHED_NETWORK)
        write_json(run_folder.file(LAUNCHED_RECORD), asdict(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
