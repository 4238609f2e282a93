"""The recorder on a broker under load: it and the broker are killed again and again."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from tests.conftest import Broker, Captured, backlog, deployment, node_at, stackbus, wait_until
from tests.recording import OUTER, copies, end_recorder, expose_on, relay_label, running

from stackbus.errors import BrokerError
from stackbus.expose.deployment import Queue, Topic
from stackbus.history.session import open_engine


class Publisher:
    """Publishes ``total`` notifications, each until it is confirmed, whatever the broker does.

    What was sent and not confirmed is sent again, with the same id.
    """

    def __init__(self, broker: Broker, topic: str, total: int) -> None:
        self.confirmed: list[str] = []
        self._broker = broker
        self._topic = topic
        self._total = total
        self._copies = copies(total)
        self._unconfirmed: tuple[Captured, str, bytes] | None = None
        self._thread = threading.Thread(
            target=lambda: wait_until(self._publish_all, 1000, "not all is confirmed", 0.5)
        )
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _publish_all(self) -> bool:
        """Publish what is left; return whether that is nothing, False if the broker went away."""
        try:
            with self._broker.channel(OUTER) as channel:
                channel.confirm_delivery()
                self._publish(channel)
        except (pika.exceptions.AMQPError, OSError, BrokerError):
            return False
        return True

    def _publish(self, channel: BlockingChannel) -> None:
        while len(self.confirmed) < self._total:
            self._unconfirmed = self._unconfirmed or next(self._copies)
            captured, message_id, body = self._unconfirmed
            key, properties = relay_label(captured, message_id)
            channel.basic_publish(self._topic, key, body, properties)
            self.confirmed.append(message_id)
            self._unconfirmed = None


@pytest.mark.timeout(1200)
def test_200_000_through_20_kills_of_the_recorder_and_5_of_the_broker(tmp_path: Path) -> None:
    total = 200_000
    draw = random.Random(20)
    with node_at(tmp_path / "node") as broker:
        assert broker.supervisor is not None
        rabbitmq = next(child for child in broker.supervisor._children if child.name == "rabbitmq")
        target = deployment(Topic("siem", queue=Queue("quorum", max_bytes=4 * 1024**3)))
        topic = expose_on(broker, tmp_path / "record", target)
        publishers = [Publisher(broker, "siem", total // 8) for _ in range(8)]

        def acknowledged() -> int:
            """Count what was published and is no longer in the queues: what was recorded."""
            confirmed = sum(len(publisher.confirmed) for publisher in publishers)
            try:
                return confirmed - backlog(broker, "siem")
            except BrokerError:
                return 0  # it is just starting

        goal = 0
        for number in range(20):
            process = topic.start()
            goal += draw.randint(500, 8000)
            wait_until(lambda goal=goal: acknowledged() >= goal, 240)  # type: ignore[misc]
            if number % 4 == 3:
                assert rabbitmq.process is not None
                rabbitmq.process.kill()
                rabbitmq.process.wait()
                assert process.stderr is not None
                if draw.random() < 0.5:  # half of the time the recorder notices it before its end
                    next(line for line in process.stderr if "stream.source_lost" in line)
                rabbitmq.start()
            process.kill()
            process.communicate()
        for publisher in publishers:
            publisher.join()
        confirmed = [identifier for publisher in publishers for identifier in publisher.confirmed]
        assert len(confirmed) == total
        with running(topic.start()) as process:
            topic.wait_for(total, 600)
            wait_until(lambda: backlog(broker, "siem") == 0, 120)
            end_recorder(process)
        engine = open_engine(f"chdb://{topic.state}/history")
        sql = "SELECT count() AS c, uniqExact(id) AS u FROM events WHERE index = 0"
        counts = json.loads(engine.select(sql, {}))
        lines = engine.select("SELECT DISTINCT id FROM events", {}).splitlines()
        engine.close()
        assert {json.loads(line)["id"] for line in lines} == set(confirmed)
        assert counts == {"c": total, "u": total}
        assert "everything is as it was recorded" in stackbus("verify", state=topic.state).stderr
