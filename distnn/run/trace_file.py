"""A trace in Perfetto's own format: spans of ranks, below the nodes they run on.

TrackEvents of https://perfetto.dev/docs/reference/synthetic-track-event: a track is described
before its events, and a span that ends is the innermost one of its track. Its older JSON format is
supported as far as it goes, and has no order of tracks.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from distnn.errors import InputError
from distnn.run.files import write_output

Mark = tuple[int, str]
"""(time in ns, name of the span that begins there, or "" where the innermost one ends)."""


class Track(NamedTuple):
    """What is drawn of one rank: its node's number, and its marks in the order of time."""

    name: str
    node: int
    marks: Iterable[Mark]


def check(path: str) -> None:
    """See that a trace can be written to a path, before any work.

    Raises:
        InputError: perfetto is not installed, a file is there already, or its folder is not.
    """
    try:
        import perfetto.trace_builder.proto_builder  # noqa: F401
    except ImportError:
        what, remedy = "needs perfetto, which is not installed", "pip install 'distnn[trace]'"
        raise InputError(what, "--trace", remedy) from None
    if os.path.isfile(path):
        raise InputError("is there already", path, "give another --trace")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise InputError("no such folder", folder, "make it, or give another --trace")


def write_trace(path: str, nodes: Sequence[str], tracks: Sequence[Track]) -> None:
    """Write the tracks, in their order.

    Args:
        nodes: their names.

    Raises:
        OSError: no space, no permission; nothing is left behind.
    """
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackDescriptor, TrackEvent
    from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            builder = StreamingTraceProtoBuilder(file)

            def describe(number: int, name: str, parent: int = 0) -> None:
                packet = builder.create_packet()
                one = packet.track_descriptor
                one.uuid, one.name, one.sibling_order_rank = number, name, number
                one.child_ordering = TrackDescriptor.EXPLICIT
                if parent:
                    one.parent_uuid = parent
                builder.write_packet(packet)

            for number, name in enumerate(nodes, 1):
                describe(number, name)
            for number, track in enumerate(tracks, 1 + len(nodes)):
                describe(number, track.name, 1 + track.node)
                for time, name in track.marks:
                    packet = builder.create_packet()
                    packet.timestamp, packet.trusted_packet_sequence_id = time, number
                    event = packet.track_event
                    event.track_uuid = number
                    event.type = TrackEvent.TYPE_SLICE_BEGIN if name else TrackEvent.TYPE_SLICE_END
                    if name:
                        event.name = name
                    builder.write_packet(packet)

    write_output(Path(path), write)
