"""Speak the topics and services of a Sawyer, as its vendor's client expects them.

The messages come from the vendor's workspace, when a twin is started; nothing of it is copied
here. Which topics, rates and behaviours: docs/sawyer.md.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any, Container, ContextManager, Dict, List, Optional, Set, Tuple

import numpy as np
import rospy
from geometry_msgs.msg import Pose, PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Empty, Float64

from ofrl_robot.errors import ConfigError
from ofrl_ros.messages import stamp_of
from ofrl_ros.twin.sawyer_gripper_io import GripperIO
from ofrl_ros.twin.sawyer_model import JOINTS, NEUTRAL, POSITION, TORQUE, VELOCITY
from ofrl_ros.twin.sawyer_scene import SawyerScene, Snapshot

LIMB = "/robot/limb/right/"
KINEMATICS = "/ExternalTools/right/PositionKinematicsNode/"
HANG = 3600.0  # s that a hanging service keeps its caller waiting
# what can be made to fail; each ends with the fault, but an emergency stop wants a reset
FAULTS = (
    "joints_silent", "joints_nan", "joints_frozen", "joints_restamped", "state_silent",
    "estop", "error", "error_survives", "disabled", "collision", "stuck",
    "ik_none", "ik_gone", "ik_hang", "ik_nan", "ik_outside", "ik_empty", "gripper_silent",
)  # fmt: skip


def vendor(module: str) -> Any:
    """Import a module of the vendor's messages. Raises ConfigError when it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the twin needs {module} ({error})",
            "source the vendor's workspace first; see docs/sawyer.md",
        ) from error


class SawyerTopics:
    """The robot's side of the client's interface, in front of a simulated arm.

    Args:
        scene: the arm.
        lock: held around every use of ``scene``'s body.
        injected: names of the faults that are injected now.
    """

    def __init__(
        self, scene: SawyerScene, lock: ContextManager[bool], injected: Container[str]
    ) -> None:
        self._scene, self._lock, self._injected = scene, lock, injected
        self._core = core = vendor("intera_core_msgs.msg")
        self._services = vendor("intera_core_msgs.srv")
        self._faults: Set[str] = set()
        self._switching = threading.RLock()  # several topics and faults change the robot's state
        self._kept: Optional[JointState] = None  # last message before a fault of joint_states
        self._released = threading.Event()  # ends what hangs
        self._snapshot: Optional[Snapshot] = None
        self._set_parameters()
        self._state = core.RobotAssemblyState(homed=True, ready=True, enabled=True)

        def publisher(topic: str, kind: Any, latch: bool = False) -> rospy.Publisher:
            return rospy.Publisher(topic, kind, queue_size=1, tcp_nodelay=True, latch=latch)

        self._joints = publisher("/robot/joint_states", JointState)
        self._states = publisher("/robot/state", core.RobotAssemblyState)
        self._endpoint = publisher(LIMB + "endpoint_state", core.EndpointState)
        self._tips = publisher(LIMB + "tip_states", core.EndpointStates)
        self._collisions = publisher(
            LIMB + "collision_detection_state", core.CollisionDetectionState
        )
        self._limits = publisher("/robot/joint_limits", core.JointLimits, latch=True)
        self._limits.publish(self._limits_message())
        self.gripper = GripperIO(core, self._set_gripper)
        for topic, kind, take in (
            (LIMB + "joint_command", core.JointCommand, self._on_command),
            (LIMB + "joint_command_timeout", Float64, self._on_timeout),
            (LIMB + "set_speed_ratio", Float64, self._on_ratio),
            ("/robot/set_super_enable", Bool, self._on_enable),
            ("/robot/set_super_reset", Empty, self._on_reset),
            ("/robot/set_super_stop", Empty, self._on_stop),
        ):
            rospy.Subscriber(topic, kind, take, tcp_nodelay=True)
        self._ik = self._offer_ik()
        rospy.Service(KINEMATICS + "FKService", self._services.SolvePositionFK, self._on_fk)

    # -- faults --------------------------------------------------------------------------

    def _follow_faults(self) -> None:
        """Do what begins or ends with a fault that was injected or ended since the last call."""
        now = {name for name in FAULTS if name in self._injected}
        begun, ended = now - self._faults, self._faults - now
        self._faults = now
        state, core = self._state, self._core.RobotAssemblyState
        if "estop" in begun:
            self._stop(core.ESTOP_BUTTON_PRESSED, core.ESTOP_SOURCE_USER)
        elif "estop" in ended:  # the robot stays stopped
            state.estop_button = core.ESTOP_BUTTON_RELEASED
        if "error" in begun:
            state.error = True
        if "disabled" in begun:
            self._switch(False)
        if "ik_gone" in begun:
            self._ik.shutdown("fault")
        elif "ik_gone" in ended:
            self._ik = self._offer_ik()
        if "ik_hang" in ended:
            self._released.set()
            self._released = threading.Event()
        self._scene.stuck = "stuck" in now
        self.gripper.acknowledges = "gripper_silent" not in now

    # -- measured ------------------------------------------------------------------------

    def publish_measured(self, snapshot: Snapshot, stamp_ns: int) -> None:
        """Send joints and poses; 100 times a second."""
        self._follow_faults()
        self._snapshot = snapshot
        stamp = stamp_of(stamp_ns)
        message = JointState(name=["head_pan", *JOINTS, "torso_t0"])
        message.header.stamp = stamp
        message.position = [0.0, *snapshot.positions.tolist(), 0.0]
        message.velocity = [0.0, *snapshot.velocities.tolist(), 0.0]
        message.effort = [0.0, *snapshot.efforts.tolist(), 0.0]
        message = self._spoiled(message)
        if "joints_silent" not in self._faults:
            self._joints.publish(message)
        core = self._core
        tips = core.EndpointStates(names=list(snapshot.tips))
        tips.header.stamp, tips.header.frame_id = stamp, "base"
        for place, turn in snapshot.tips.values():
            state = core.EndpointState(pose=_pose(place, turn), valid=True)
            state.header.stamp, state.header.frame_id = stamp, "base"
            tips.states.append(state)
        self._tips.publish(tips)
        self._endpoint.publish(tips.states[0])
        collision = core.CollisionDetectionState(collision_state="collision" in self._faults)
        collision.header.stamp = stamp
        self._collisions.publish(collision)
        if "state_silent" not in self._faults:
            self._states.publish(self._state)
        self.gripper.publish(snapshot.opening, snapshot.opening_speed)

    def _spoiled(self, message: JointState) -> JointState:
        faults = self._faults
        if self._kept is None or not faults & {"joints_frozen", "joints_restamped"}:
            self._kept = message
        if "joints_frozen" in faults:
            return self._kept
        if "joints_restamped" in faults:
            message.position = list(self._kept.position)
        if "joints_nan" in faults:
            message.position[1] = float("nan")
        return message

    # -- commands ------------------------------------------------------------------------

    def _on_command(self, message: Any) -> None:
        if message.mode == TORQUE:
            rospy.logwarn_once("the twin has no torque mode")
        values = message.velocity if message.mode == VELOCITY else message.position
        mode = VELOCITY if message.mode == VELOCITY else POSITION
        if message.mode != TORQUE:
            self._scene.controller.command(mode, message.names, values)

    def _on_timeout(self, message: Float64) -> None:
        self._scene.controller.timeout = message.data

    def _on_ratio(self, message: Float64) -> None:
        self._scene.controller.ratio = float(np.clip(message.data, 0.0, 1.0))

    def _set_gripper(self, metres: float) -> None:
        if self._state.enabled:
            self._scene.gripper_target = metres

    # -- enable, reset, stop -------------------------------------------------------------

    def _on_enable(self, message: Bool) -> None:
        with self._switching:
            if not self._state.stopped:
                self._switch(bool(message.data))

    def _on_reset(self, _message: Empty) -> None:
        core, state = self._core.RobotAssemblyState, self._state
        with self._switching:
            if state.estop_button == core.ESTOP_BUTTON_PRESSED or not state.stopped:
                return
            state.stopped = False
            state.estop_button = core.ESTOP_BUTTON_UNPRESSED
            state.estop_source = core.ESTOP_SOURCE_NONE
            state.error = "error_survives" in self._faults
            self._switch(False)

    def _on_stop(self, _message: Empty) -> None:
        core = self._core.RobotAssemblyState
        self._stop(core.ESTOP_BUTTON_UNPRESSED, core.ESTOP_SOURCE_UNKNOWN)

    def _stop(self, button: int, source: int) -> None:
        with self._switching:
            self._switch(False)
            self._state.stopped, self._state.estop_button = True, button
            self._state.estop_source = source

    def _switch(self, enabled: bool) -> None:
        """Enable or disable; either way the arm stays where it is."""
        with self._switching:
            if enabled != self._state.enabled:
                with self._lock:
                    positions = self._scene.body.joints()[0]
                self._scene.controller.hold(positions)
            self._state.enabled = self._state.ready = enabled
            self._scene.controller.enabled = enabled

    # -- kinematics ----------------------------------------------------------------------

    def _offer_ik(self) -> rospy.Service:
        return rospy.Service(KINEMATICS + "IKService", self._services.SolvePositionIK, self._on_ik)

    def _on_ik(self, request: Any) -> Any:
        response = self._services.SolvePositionIKResponse()
        faults = self._faults
        if "ik_hang" in faults:
            self._released.wait(HANG)
        if "ik_empty" in faults:
            return response
        pose, tip = request.pose_stamp[0].pose, request.tip_names[0]
        seed = np.array(NEUTRAL if self._snapshot is None else self._snapshot.positions)
        if request.seed_mode == request.SEED_USER and request.seed_angles:
            given = request.seed_angles[0]
            known: Dict[str, float] = dict(zip(given.name, given.position))
            seed = np.array([known.get(name, value) for name, value in zip(JOINTS, seed)])
        joints: Optional[np.ndarray] = None
        failed = response.IK_FAILED
        if tip not in self._scene_tips():
            failed = response.IK_ENDPOINT_DOES_NOT_EXIST
        elif "ik_none" not in faults:
            joints = self._scene.solve(*_arrays(pose), seed, tip)
        if joints is None:
            response.joints, response.result_type = [JointState()], [failed]
            return response
        if "ik_nan" in faults:
            joints[2] = float("nan")
        if "ik_outside" in faults:
            joints[3] = 4.0
        answer = JointState(name=list(JOINTS), position=joints.tolist())
        response.joints, response.result_type = [answer], [1]
        return response

    def _on_fk(self, request: Any) -> Any:
        response = self._services.SolvePositionFKResponse()
        for configuration, tip in zip(request.configuration, request.tip_names):
            known = dict(zip(configuration.name, configuration.position))
            stamped, valid = PoseStamped(), tip in self._scene_tips() and set(JOINTS) <= set(known)
            stamped.header.frame_id = "base"
            if valid:
                joints = np.array([known[name] for name in JOINTS])
                place, turn = self._scene.kinematics.forward(joints, tip)
                stamped.pose = _pose(place, turn.as_quat())
            response.pose_stamp.append(stamped)
            response.isValid.append(valid)
            response.inCollision.append(False)
        return response

    def _scene_tips(self) -> List[str]:
        return [] if self._snapshot is None else list(self._snapshot.tips)

    # -- what does not change ------------------------------------------------------------

    def _limits_message(self) -> Any:
        arm = self._scene.kinematics
        return self._core.JointLimits(
            joint_names=list(JOINTS),
            position_lower=arm.low.tolist(),
            position_upper=arm.high.tolist(),
            velocity=arm.speeds.tolist(),
            accel=[5.0] * len(JOINTS),
            effort=arm.efforts.tolist(),
        )

    def _set_parameters(self) -> None:
        for name, value in (
            ("/robot_config/assembly_names", ["right", "torso", "head"]),
            ("/robot_config/right_config/joint_names", list(JOINTS)),
            ("/named_poses/right/poses/neutral", list(NEUTRAL)),
            ("/manifest/robot_software/version/HLR_VERSION_STRING", "5.3.0"),
            ("/manifest/robot_class", "sawyer"),
        ):
            rospy.set_param(name, value)


def _pose(place: np.ndarray, turn: np.ndarray) -> Pose:
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = place.tolist()
    orientation = pose.orientation
    orientation.x, orientation.y, orientation.z, orientation.w = turn.tolist()
    return pose


def _arrays(pose: Pose) -> Tuple[np.ndarray, np.ndarray]:
    place, turn = pose.position, pose.orientation
    return np.array([place.x, place.y, place.z]), np.array([turn.x, turn.y, turn.z, turn.w])
