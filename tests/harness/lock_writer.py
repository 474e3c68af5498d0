"""What runs under a lock: appends `<fence> <pid>` to a shared log every 2 ms, for a while, as any program would."""

import os
import sys
import time

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
line = f"{os.environ['FAIRLEAD_FENCE']} {os.getpid()}\n".encode()
end_s = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end_s:
    os.write(log, line)
    time.sleep(0.002)
