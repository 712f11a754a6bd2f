"""Convert between ROS bags of the topics in docs/ros_interface.md and episodes.

Nothing in a bag is executed: see :mod:`ofrl_ros.bag_file`. A dataset that went through a bag is
the same to the bit, without: the originals before crop and resize (``obs_jpeg``), rewards from
before a relabelling, splits, and ``created``.
"""

from ofrl_ros.bag_export import export_bag
from ofrl_ros.bag_import import ImportedBag, import_bag

__all__ = ["ImportedBag", "export_bag", "import_bag"]
