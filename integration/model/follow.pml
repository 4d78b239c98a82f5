/* Following a recorded run: kasaga.pml does what the run tells, where it is told, or comes to a halt.
 *
 * Each thing that a run tells has a kind, a process that does it (`who`: the model's number of it), and what it is
 * about. SEEN stands in the guard of the action that it tells of, so no other can be taken; WENT_ON asks for the next.
 * What isn't told (what the saga's code wants, which attempt was taken, whether an acknowledgement has come) is tried
 * both ways. A run that can be followed to its end is a run of the model.
 *
 * trace.py writes the file that the environment's FOLLOW names: a line of numbers for each.
 */
#define CAN_FAIL true
#define FAULT skip
#define UNSEEN false
#define MAY_DIE SEEN(GONE, _pid, 0, 0)
#define ANYBODY told_who
#define GIVES_UP(s) true
#define OVER(r) 1                                   /* when a time was over isn't told: only that a timer fired */

#define CLAIM 1
#define COMMIT 2
#define PRODUCED 3
#define TAKEN 4
#define ENDED 5
#define REPLIED 6
#define TOUCHED 7                                   /* a commit for other sagas of the shard */
#define FENCED 8
#define AGAIN 9                                     /* a record that the producer has given back is produced again */
#define GONE 10                                     /* a participant that has taken a record never answers it */
#define LAST 11
#define ASTRAY 12                                   /* the model has done something else: nothing goes on from there */
#define ANY 255

byte told, told_who, told_what, told_with;
byte want[ROWS];                                    /* the outbox as it is after a commit; ANY: not told */
byte want_phase;
short place;

c_decl { \#include <stdio.h>
}
c_decl { \#include <stdlib.h>
}
c_decl { extern int lines[2000][5 + 8]; extern int furthest; }
c_code {
    int lines[2000][5 + 8], furthest;
    static void say(void) { printf("followed %d\n", furthest); }
    __attribute__((constructor)) static void load(void) {
        FILE *file = fopen(getenv("FOLLOW"), "r");
        for (int at = 0; at < 2000; at++)
            for (int i = 0; i < 5 + 8; i++)
                if (fscanf(file, "%d", &lines[at][i]) != 1) { fclose(file); atexit(say); return; }
    }
}
inline next() {
    c_code {
        int *line = lines[now.place];
        if (now.place > furthest) furthest = now.place;
        now.told = line[0]; now.told_who = line[1]; now.told_what = line[2]; now.told_with = line[3];
        now.want_phase = line[4];
        for (int i = 0; i < 8; i++) now.want[i] = line[5 + i];
        now.place++;
    }
}

#define TAKE_ROW(r) TAKE(6 * r) TAKE(6 * r + 1) TAKE(6 * r + 2) TAKE(6 * r + 3) TAKE(6 * r + 4) TAKE(6 * r + 5)

#define SEEN(kind, by, about, with) \
    (told == kind && told_who == by && told_what == about && (told_with == with || kind != REPLIED))
#define WENT_ON next();
#define AS_WANTED(r) (want[r] == ANY || want[r] == row[r] + (IS_UNDO(r) && row[r] != 0 && !undoable[STEP(r)] -> 100 : 0))
#define GO_ON_IF_COMMITTED_SO \
    if \
    :: (want_phase == ANY || want_phase == phase) && AS_WANTED(0) && AS_WANTED(1) && AS_WANTED(2) && AS_WANTED(3) \
        && AS_WANTED(4) && AS_WANTED(5) && AS_WANTED(6) && AS_WANTED(7) -> next() \
    :: else -> told = ASTRAY \
    fi;
#define GO_ON_IF_ANSWERED_SO \
    if \
    :: told_with == answer -> next() \
    :: else -> told = ASTRAY \
    fi;

#define OTHER_EVENTS_OF_AN_OWNER \
    :: atomic { OWNED && SEEN(TOUCHED, _pid, 0, 0) && token == mine -> next() } \
    :: atomic { OWNED && SEEN(FENCED, _pid, 0, 0) && token != mine -> next() } \
    :: atomic { OWNED && SEEN(AGAIN, _pid, told_what, 0) && at[ROW(told_what)] == ATTEMPT(told_what) \
        && relay[ROW(told_what)] != TO_SEND -> next() }

#define READER \
active proctype Reader() { \
    next(); \
end: \
    told == LAST -> assert(1000 == 0)               /* followed to its end */ \
}
