"""MENTOR-style training: a teacher's words mixed in where the student is uncertain."""
