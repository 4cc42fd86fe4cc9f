"""Cases given to workers: a bounded number each, those of lost workers again, each exactly once."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from duplus_nnunet.inference.dispatch import Dispatcher, Task


def make(cases: int, depth: int = 3, most_losses: int = 3) -> Dispatcher[str, int]:
    return Dispatcher(iter(range(cases)), depth, most_losses)


def take_all(dispatcher: Dispatcher[str, int], worker: str) -> list[Task[int]]:
    taken = []
    while (task := dispatcher.take(worker)) is not None:
        taken.append(task)
    return taken


def test_a_worker_has_a_bounded_number_of_cases() -> None:
    dispatcher = make(10)
    first = take_all(dispatcher, "a")
    assert [task.case for task in first] == [0, 1, 2]
    dispatcher.finish("a", first[1])
    assert [task.case for task in take_all(dispatcher, "a")] == [3]


def test_cases_are_taken_from_the_source_only_when_there_is_room() -> None:
    drawn = []

    def draw() -> Iterator[int]:
        for case in range(100):
            drawn.append(case)
            yield case

    take_all(Dispatcher(draw(), 3, 3), "a")
    assert len(drawn) <= 4


def test_cases_of_a_lost_worker_come_last_and_alone() -> None:
    dispatcher = make(4)
    take_all(dispatcher, "a")
    assert dispatcher.lose("a") == []
    (new,) = take_all(dispatcher, "b")
    assert new.case == 3
    dispatcher.finish("b", new)
    for case in (0, 1, 2):
        (task,) = take_all(dispatcher, "b")
        assert (task.case, task.losses) == (case, 1)
        dispatcher.finish("b", task)
    assert dispatcher.is_done


def test_a_case_that_loses_every_worker_is_given_up_and_those_beside_it_are_not() -> None:
    dispatcher, finished, given_up = make(3), [], []
    take_all(dispatcher, "a")
    given_up += dispatcher.lose("a")
    while not dispatcher.is_done:
        (task,) = take_all(dispatcher, "b")
        if task.case == 1:
            given_up += dispatcher.lose("b")
        else:
            dispatcher.finish("b", task)
            finished.append(task.case)
    assert finished == [0, 2]
    assert [(task.case, task.losses) for task in given_up] == [(1, 3)]


@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_no_case_is_lost_or_predicted_twice(cases: int, events: list[tuple[str, bool]]) -> None:
    dispatcher, held = make(cases), dict[str, list[Task[int]]]()
    ended: list[int] = []
    for worker, is_lost in [*events, *[(worker, False) for _ in range(4 * cases + 4) for worker in "abc"]]:
        own = held.setdefault(worker, [])
        own += take_all(dispatcher, worker)
        assert len(own) <= 3
        if is_lost:
            ended += [task.case for task in dispatcher.lose(worker)]
            own.clear()
        elif own:
            dispatcher.finish(worker, own[0])
            ended.append(own.pop(0).case)
    assert sorted(ended) == list(range(cases))
    assert dispatcher.is_done


def test_new_cases_are_counted_up_to_a_number() -> None:
    assert [make(2).look(most) for most in (1, 2, 5)] == [1, 2, 2]
