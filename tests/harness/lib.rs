//! The test harness: builds victims, runs `helloops` on them, cleans up.
