"""Sessions over ROS, seen from outside: launch files, and what a session says of its end."""
