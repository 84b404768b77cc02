"""The watch over all accounts: one observation in, one decision out; the gateway and replay call this same code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from limbeck.errors import GuardError
from limbeck.guard import lane, snapshot
from limbeck.guard.asked import Asked, Measured
from limbeck.guard.decision import Action, Decision, Reason
from limbeck.guard.evidence import calibration as calibrated
from limbeck.guard.evidence.calibration import LEANS, Calibration
from limbeck.guard.evidence.checkpoints import CLUSTER_FROM, due, nearest
from limbeck.guard.features import NAMES, ask
from limbeck.guard.observation import Observation
from limbeck.guard.policy import DEFAULT, Finding, Policy, decide, load_policy
from limbeck.guard.recollection import Memory, Vector
from limbeck.guard.signals.links import links
from limbeck.guard.signals.suite import Suite
from limbeck.guard.signals.suite import load as load_suite
from limbeck.guard.sketch import Sketcher
from limbeck.guard.watched import GROUPS, Account, Cluster, Resident

REASONS = 3
"""Features that a decision names."""
WORTH_SAYING = 10.0
"""Evidence from which reasons are given."""


class Recorder(Protocol):
    """Who wants to see feature vectors at checkpoints: `fit`."""

    def own(self, account: str, place: int, feature_F: Vector) -> None:
        """Take an account's features."""
        ...

    def shared(self, cluster: str, place: int, feature_F: Vector) -> None:
        """Take a cluster's features."""
        ...

    def touch(self, account: str, cluster: str) -> None:
        """Hear that an account was weighed together with a cluster."""
        ...


class Watch:
    """What is remembered of all accounts, in bounded memory."""

    def __init__(
        self,
        policy: Policy,
        *,
        secret: bytes,
        calibration: Calibration | None = None,
        suites: Sequence[Suite] = (),
        recorder: Recorder | None = None,
    ) -> None:
        """Start with no account known.

        Args:
            policy: What is done about which evidence.
            secret: Keys every hash, so that nobody outside can make two prompts collide.
            calibration: What evidence is weighed with; None measures and never finds any.
            suites: Sketches of known test suites, made under the same secret.
            recorder: Told of every feature vector at a checkpoint.

        Raises:
            GuardError: The policy promises less than the calibration supports.
        """
        if calibration is not None and policy.evidence.alpha < calibration.alpha * (1 - 1e-9):
            raise GuardError(
                f"the policy's evidence.alpha = {policy.evidence.alpha:g} is below {calibration.alpha:g}, the least that "
                "the calibration supports; fit it on more honest accounts or raise alpha"
            )
        self.sketcher = Sketcher(secret)
        self._key = self.sketcher.fingerprint
        self._policy = policy
        self._calibration = calibration
        self._rivals = 0 if calibration is None else len(calibration.rivals)
        self._suites = tuple(suites)
        self._recorder = recorder
        self.lifted: int | None = None
        """The number of the last accusation taken back by a person that it heard of; whoever calls `lift` counts."""
        self.accounts, self.clusters = self._tables()

    @classmethod
    def open(cls, policy: Path = DEFAULT, *, secret: bytes) -> "Watch":
        """Read a policy and the artefacts that it names.

        Raises:
            GuardError: One of them is missing or not what the policy says.
        """
        read = load_policy(policy)
        sketcher = Sketcher(secret)
        named = read.evidence.calibration
        return cls(
            read,
            secret=secret,
            calibration=None
            if named is None
            else calibrated.load(policy.parent / named, read.evidence.calibration_sha256),
            suites=[load_suite(policy.parent / name, sketcher) for name in read.suites],
        )

    def observe(self, observation: Observation) -> Decision:
        """Take in one request and say what to do about its account from now on.

        Raises:
            GuardError: It was measured under another secret.
        """
        return self.weigh(observation, self.measure(observation))

    def measure(self, observation: Observation) -> Measured:
        """Measure one request, or take what was measured when it came.

        Raises:
            GuardError: That was under another secret.
        """
        measured = observation.measured
        if measured is None:
            return Measured(ask(observation, self.sketcher, self._suites), self._key)
        if measured.key != self._key:
            raise GuardError(
                f"the request was measured under the secret {measured.key}, this watch has {self._key}; "
                "name the guard's folder, so that its own secret is used"
            )
        return measured

    def weigh(self, observation: Observation, measured: Measured) -> Decision:
        """Take in one request as it was measured; see `observe`."""
        asked = measured.asked
        account = self.accounts.get(observation.account)
        if account is None:
            account = Account(self._rivals)
            self.accounts.put(observation.account, account)
        clusters = self._join(observation, account)
        self._absorb(
            account, [c.memory for c in clusters if c.memory is not None], asked, observation.ts
        )
        self._weigh(observation.account, account, clusters)
        return self._decide(observation, account, clusters)

    def lift(self, account: str) -> None:
        """Take back an accusation, as a person decided; evidence starts anew, of its clusters too.

        Raises:
            GuardError: The account is not known.
        """
        known = self.accounts.peek(account)
        if known is None:
            raise GuardError(f"account {account!r} is not known to the watch")
        known.standing = Action.ALLOW
        known.peak_R[:] = -np.inf
        known.latest_R[:] = -np.inf
        known.evidence = None
        for key in known.groups:
            if (cluster := self.clusters.peek(key)) is not None:
                known.pardon_R = np.maximum(known.pardon_R, cluster.peak_R)

    def e_value(self, account: str) -> float:
        """Return the evidence against an account; 1 where it is not known."""
        known = self.accounts.peek(account)
        return 1.0 if known is None else self._evidence(known)[0]

    def discoveries(self, rate: float) -> tuple[str, ...]:
        """Return the accounts that are copying at a false discovery rate, by e-BH over all that are resident.

        Raises:
            ValueError: A rate outside (0, 1).
        """
        from limbeck.stats.multiple import e_benjamini_hochberg

        found = [(str(name), self._evidence(account)[0]) for name, account in self.accounts]
        kept = e_benjamini_hochberg([e for _, e in found], rate)
        return tuple(name for (name, _), is_kept in zip(found, kept, strict=True) if is_kept)

    def _join(self, observation: Observation, account: Account) -> list[Cluster]:
        """The clusters of an account that have more than one, joined where a link is new."""
        active: list[Cluster] = []
        for _, name in links(observation):
            key = self.sketcher[name]
            cluster = self.clusters.get(key)
            if cluster is None:
                cluster = Cluster(name, observation.account, self._rivals)
                self.clusters.put(key, cluster)
            if key not in account.groups:
                if len(account.groups) >= GROUPS:
                    continue
                account.groups = (*account.groups, key)
                self._enter(cluster, observation.account, account)
            if cluster.memory is not None:
                active.append(cluster)
        return active

    def _enter(self, cluster: Cluster, name: str, account: Account) -> None:
        if cluster.first == name:
            return
        if cluster.memory is None:
            first = self.accounts.peek(cluster.first)
            cluster.begin(None if first is None else first.memory)
        assert cluster.memory is not None  # noqa: S101 (begun just now)
        cluster.memory.shard.join(account.memory.requests)

    def _absorb(self, account: Account, memories: list[Memory], asked: Asked, ts: float) -> None:
        own = account.memory
        for memory in memories:
            memory.shard.step(asked.topics, own.breadth, memory.breadth, own.requests)
        fresh = own.step(asked, ts)
        for memory in memories:
            memory.shard.share(max(0.0, fresh - memory.step(asked, ts)))

    def _weigh(self, name: str, account: Account, clusters: list[Cluster]) -> None:
        """Bring scores up to date: of the account, of its clusters, and of the account through them."""
        if (
            self._calibration is not None
            and account.memory.requests % self._calibration.horizon == 1
        ):
            account.peak_R = np.full(self._rivals, -np.inf)
            account.evidence = None
        place = due(account.memory.requests)
        if place is not None:
            self._weigh_own(name, account, place)
        for cluster in clusters:
            assert cluster.memory is not None  # noqa: S101 (only such clusters are active)
            place = due(cluster.memory.requests)
            if place is not None and cluster.memory.requests >= CLUSTER_FROM:
                self._weigh_shared(cluster, cluster.memory, place)
            if self._recorder is not None:
                self._recorder.touch(name, cluster.name)
            if self._rivals:
                self._lift_through(account, cluster)

    def _weigh_own(self, name: str, account: Account, place: int) -> None:
        feature_F = account.memory.features()
        if self._recorder is not None:
            self._recorder.own(name, place, feature_F)
        if self._calibration is not None:
            account.latest_R, score_R = self._calibration.scorers["own"].score(place, feature_F)
            account.peak_R = np.maximum(account.peak_R, score_R)
            account.evidence = None

    def _weigh_shared(self, cluster: Cluster, memory: Memory, place: int) -> None:
        feature_F = memory.features()
        if self._recorder is not None:
            self._recorder.shared(cluster.name, place, feature_F)
        if self._calibration is not None:
            _, score_R = self._calibration.scorers["shared"].score(place, feature_F)
            cluster.peak_R = np.maximum(cluster.peak_R, score_R)

    def _lift_through(self, account: Account, cluster: Cluster) -> None:
        """A cluster's evidence counts against an account whose own requests lean the same way."""
        counts_R = (account.latest_R > LEANS) & (cluster.peak_R > account.pardon_R)
        through_R = np.where(counts_R, cluster.peak_R, -np.inf)
        if (through_R > account.peak_R).any():
            account.peak_R = np.maximum(account.peak_R, through_R)
            account.evidence = None

    def _evidence(self, account: Account) -> tuple[float, int]:
        """The e-value of an account, and the rival that explains it best."""
        if self._calibration is None:
            return 1.0, 0
        if account.evidence is None:
            account.evidence = self._calibration.evidence(account.peak_R)
        return account.evidence

    def _decide(
        self, observation: Observation, account: Account, clusters: list[Cluster]
    ) -> Decision:
        evidence, rival = self._evidence(account)
        budget = self._policy.yield_
        meters = [account.memory.meter, *(c.memory.meter for c in clusters if c.memory is not None)]
        spent = max(meter.spent(budget.traces, budget.tokens) for meter in meters)
        through, because = (
            self._because(account, clusters, rival) if evidence >= WORTH_SAYING else ("", ())
        )
        served = lane.place(self._policy.lane, account.memory, observation.declared_use)
        if served is not None:
            action, clause, because = served.action, "benchmark lane", (*served.because, *because)
        else:
            action, clause = decide(self._policy, Finding(evidence, spent))
            if action >= Action.CHALLENGE:
                account.standing = max(account.standing, action)
            action = max(action, account.standing)
        return Decision(
            observation.ts, observation.account, action, because, clause, evidence, through, {"spent": spent}
        )  # fmt: skip

    def _because(
        self, account: Account, clusters: list[Cluster], rival: int
    ) -> tuple[str, tuple[Reason, ...]]:
        """The cluster that evidence came through, and the features that weigh most against the best rival."""
        fitted = self._calibration
        if fitted is None:
            return "", ()
        through = next((c for c in clusters if c.peak_R[rival] >= account.peak_R[rival]), None)
        memory = account.memory if through is None or through.memory is None else through.memory
        kind = "own" if through is None else "shared"
        feature_F = memory.features()
        part_F = fitted.scorers[kind].parts(nearest(memory.requests), feature_F, rival)
        top = [int(f) for f in np.argsort(-part_F)[:REASONS] if part_F[f] > 0]
        because = tuple(
            Reason(NAMES[f], round(float(feature_F[f]), 4), f"against {fitted.rivals[rival]}")
            for f in top
        )
        return ("" if through is None else through.name), because

    def snapshot(self) -> bytes:
        """Return all state, so that a watch that restores it decides as this one would."""
        return snapshot.write(self._made_for, self.accounts, self.clusters, self.lifted)

    def restore(self, data: bytes) -> None:
        """Take in what `snapshot` wrote, in place of all that is known.

        Raises:
            GuardError: It is no snapshot, or of another secret or calibration.
        """
        accounts, clusters = self._tables()
        self.lifted = snapshot.read(data, self._made_for, accounts, clusters, self._rivals)
        self.accounts, self.clusters = accounts, clusters

    @property
    def _made_for(self) -> list[str]:
        calibration = "" if self._calibration is None else self._calibration.identity
        return [self._key, calibration]

    def _tables(self) -> tuple[Resident[Account], Resident[Cluster]]:
        limits = self._policy.memory
        return (
            Resident(limits.accounts, keeps=lambda account: account.standing > Action.ALLOW),
            Resident(limits.clusters, keeps=lambda _: False),
        )
