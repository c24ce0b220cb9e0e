"""Host and boards as servers in cimba, as its documentation teaches.

A server is a process that takes an image from its inbox, holds it for a time and puts it into the
next inbox.  One that fails looks up in a table when it is down next.
"""

import cimba


class Server(cimba.Model):
    """A processor or a link: it holds each image of its inbox for a time."""

    holding_ms: cimba.Param[float]
    inbox: cimba.Store[int]
    outbox: cimba.Ref[cimba.Store[int]]

    @cimba.process
    def serve(self):
        """Serve image after image."""
        while True:
            image = self.inbox.get()
            cimba.hold(self.holding_ms)
            self.outbox.put(image)


class HostServer(cimba.Model):
    """The host: where images come from, the sender, and the join."""

    gaps: cimba.Input[float]
    images: cimba.Param[int]
    joining_ms: cimba.Param[float]
    sending_ms: cimba.Array[float]
    starts_ms: cimba.Array[float]
    came: cimba.Array[int]
    boards: list[Server]
    links: list[Server]
    arrived: cimba.Store[int]
    replies: cimba.Store[int]
    complete: cimba.Store[int]
    latency_ms: cimba.Dataset
    mean_ms: cimba.Output[float]

    @cimba.process
    def source(self):
        """Let images come."""
        for image in range(self.images):
            cimba.hold(self.gaps.next())
            self.starts_ms[image] = cimba.now()
            self.arrived.put(image)

    @cimba.process
    def sender(self):
        """Send each image to all boards, one after the other."""
        while True:
            image = self.arrived.get()
            for place in range(len(self.boards)):
                cimba.hold(self.sending_ms[place])
                self.boards[place].inbox.put(image)

    @cimba.process
    def receiver(self):
        """Wait for the replies to an image."""
        while True:
            image = self.replies.get()
            self.came[image] += 1
            if self.came[image] == len(self.boards):
                self.complete.put(image)

    @cimba.process
    def joiner(self):
        """Join."""
        while True:
            image = self.complete.get()
            cimba.hold(self.joining_ms)
            self.latency_ms.record(cimba.now() - self.starts_ms[image])

    @cimba.on_end
    def measure(self):
        """Keep the mean."""
        self.mean_ms = self.latency_ms.sample_mean()


class FailingServer(cimba.Model):
    """A server that loses what it does, and what comes, when its board is down."""

    holding_ms: cimba.Param[float]
    downs_ms: cimba.Array[float]
    ups_ms: cimba.Array[float]
    inbox: cimba.Store[int]
    outbox: cimba.Ref[cimba.Store[int]]

    @cimba.process
    def serve(self):
        """Serve image after image."""
        place = 0
        while True:
            image = self.inbox.get()
            while self.ups_ms[place] <= cimba.now():
                place += 1
            if self.downs_ms[place] >= cimba.now() + self.holding_ms:
                cimba.hold(self.holding_ms)
                self.outbox.put(image)
            elif self.downs_ms[place] > cimba.now():
                cimba.hold(self.downs_ms[place] - cimba.now())


class FailingHost(cimba.Model):
    """The host of boards that fail: at the deadline it joins what came."""

    gaps: cimba.Input[float]
    images: cimba.Param[int]
    joining_ms: cimba.Param[float]
    deadline_ms: cimba.Param[float]
    sending_ms: cimba.Array[float]
    starts_ms: cimba.Array[float]
    places: cimba.Array[int]
    came: cimba.Array[int]
    over: cimba.Array[bool]
    boards: list[FailingServer]
    links: list[FailingServer]
    arrived: cimba.Store[int]
    watched: cimba.Store[int]
    replies: cimba.Store[int]
    complete: cimba.Store[int]
    latency_ms: cimba.Dataset
    mean_ms: cimba.Output[float]

    @cimba.process
    def source(self):
        """Let images come."""
        for image in range(self.images):
            cimba.hold(self.gaps.next())
            self.starts_ms[image] = cimba.now()
            self.arrived.put(image)
            self.watched.put(image)

    @cimba.process
    def sender(self):
        """Send each image to all boards, one after the other."""
        while True:
            image = self.arrived.get()
            for number in range(len(self.boards)):
                place = self.places[number]
                while self.boards[number].ups_ms[place] <= cimba.now():
                    place += 1
                self.places[number] = place
                down_ms = self.boards[number].downs_ms[place]
                if down_ms >= cimba.now() + self.sending_ms[number]:
                    cimba.hold(self.sending_ms[number])
                    self.boards[number].inbox.put(image)
                elif down_ms > cimba.now():
                    cimba.hold(down_ms - cimba.now())

    @cimba.process
    def receiver(self):
        """Wait for the replies to an image."""
        while True:
            image = self.replies.get()
            self.came[image] += 1
            if self.came[image] == len(self.boards) and not self.over[image]:
                self.over[image] = True
                self.complete.put(image)

    @cimba.process
    def watch(self):
        """Join what came by the deadline; an image of which nothing came is lost."""
        while True:
            image = self.watched.get()
            left_ms = self.starts_ms[image] + self.deadline_ms - cimba.now()
            if left_ms > 0.0:
                cimba.hold(left_ms)
            if not self.over[image]:
                self.over[image] = True
                if self.came[image] > 0:
                    self.complete.put(image)

    @cimba.process
    def joiner(self):
        """Join."""
        while True:
            image = self.complete.get()
            cimba.hold(self.joining_ms)
            self.latency_ms.record(cimba.now() - self.starts_ms[image])

    @cimba.on_end
    def measure(self):
        """Keep the mean."""
        self.mean_ms = self.latency_ms.sample_mean()
