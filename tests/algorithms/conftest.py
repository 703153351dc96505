import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # random_walk.py, which a child process reads too
