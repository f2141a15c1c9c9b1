"""`pfstore worker`: a process that does what is queued."""

from __future__ import annotations

from typing import Literal

import click

from pfstore.cli.app import App, Command


@click.command(cls=Command)
@click.option("--concurrency", default=1, show_default=True, type=click.IntRange(1, 64), help="Jobs at the same time.")
@click.option(
    "--grace",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long a job may go on after SIGTERM before it is given back.",
)
@click.option("--once", is_flag=True, help="End when no job is left that may begin.")
@click.option("--run", "run_id", type=int, metavar="RUN", help="Do jobs of this run alone, and end with it.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), metavar="PORT", help="Serve metrics for Prometheus.")
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to serve metrics."
)
@click.option(
    "--log", "form", default="json", show_default=True, type=click.Choice(["json", "text"]), help="Form of the log."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1, for networks.")
@click.pass_context
def worker(
    context: click.Context,
    concurrency: int,
    grace: float,
    once: bool,
    run_id: int | None,
    metrics_port: int | None,
    metrics_host: str,
    form: Literal["json", "text"],
    device: str,
) -> None:
    """Do jobs: shards of backfills and refreshes, and the schedules of pfstore.toml.

    As many workers as wanted, on any machine that reaches the database and the sources, with the same pfstore.toml.
    One that is told to stop (SIGTERM, Ctrl-C) finishes the shard in hand or gives it back, and exits 0; Ctrl-C a
    second time does not wait and exits 130. One that is killed loses nothing: others do its shard again after a minute.

    \b
    Example:
      pfstore worker
      pfstore worker --concurrency 4 --metrics-port 9400
    """
    from pfstore.cli.logs import worker_log
    from pfstore.fusion.devices import device_of
    from pfstore.jobs.metrics import Meter, Prometheus
    from pfstore.jobs.worker import Options, work

    app = context.ensure_object(App)
    device_of(device)
    options = Options(concurrency=concurrency, grace=grace, once=once, run=run_id, device=device)
    meter = Meter() if metrics_port is None else Prometheus(metrics_port, metrics_host)
    try:
        code = work(app.database, app.config, options, log=worker_log(form, quiet=app.quiet), meter=meter)
    finally:
        meter.close()
    context.exit(code)
