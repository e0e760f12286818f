"""The four questions, each to the function that answers it."""

from typing import assert_never

from ssfs.engine.questions.diff import compare_versions
from ssfs.engine.questions.find import find_paths
from ssfs.engine.questions.history import show_history
from ssfs.engine.questions.usage import show_usage
from ssfs.model.peer import Peer
from ssfs.protocol.questions import (
    CompareVersions,
    FindPaths,
    Question,
    QuestionReport,
    ShowHistory,
    ShowUsage,
)
from ssfs.store.store import Store


def answer_question(store: Store, peer: Peer, request: Question) -> QuestionReport:
    """Answer a question about what is in versions; nothing changes.

    Raises:
        TrustError: The peer may not read it.
        ConfigError: There is no such sync point, task, version or path.
        StoreError: The store cannot be read.
    """
    match request:
        case FindPaths():
            return find_paths(store, peer, request)
        case ShowHistory():
            return show_history(store, peer, request)
        case CompareVersions():
            return compare_versions(store, peer, request)
        case ShowUsage():
            return show_usage(store, peer, request)
        case _:
            assert_never(request)
