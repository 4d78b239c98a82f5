/* Kasaga's protocol: one saga of one shard, from its start to its end, whatever happens on the way.
 *
 * README.md beside this file says what stands for what, what is left out, and what is proved. In short:
 *
 *   Owner        a process of the orchestrator: claims the shard, reads, decides, commits, relays. It may die, and
 *                it may lose the shard and go on as a zombie.
 *   Participant  an instance of the service: claims in the inbox, runs the handler, answers. It may die.
 *   Clock        lets the time of an open row run out.
 *   AtRest       looks at what is left when nobody can do anything any more.
 *
 * Each `atomic` is one thing that the real system does in one go: a transaction, a record put into Kafka. HOLDS names
 * a guarantee where it is checked. printf tells the story of a counterexample.
 */

/* ---- how much may happen: __main__.py sets these ---- */
#ifndef STEPS
#define STEPS 2                                     /* of the saga, at most */
#define OWNERS 2
#define PARTICIPANTS 2
#define FAULTS 2                                    /* of any kind, at any time: each takes one */
#endif
#ifndef FOLLOWING
#define TRIES 2                                     /* of a command */
#define MOST 3                                      /* attempts of anything */
#define ANSWERS 12                                  /* replies that wait to be read */
#endif

/* ---- bugs to plant, one at a time, by the environment's PLANTED; each breaks the guarantee that it names ---- */
#ifdef PLANT
c_decl { \#include <stdlib.h>
}
c_decl { extern int planted; }
c_code {
    int planted;
    __attribute__((constructor)) static void plant(void) { planted = atoi(getenv("PLANTED")); }
}
#define BUG c_expr { planted }
#else
#define BUG 0
#endif
#define TOKEN_NOT_CHECKED (BUG == 1)                /* no_commit_under_an_old_token */
#define FENCE_BY_ROW_COUNT (BUG == 2)               /* no_commit_under_an_old_token */
#define TOKEN_READ_WITHOUT_LOCK (BUG == 3)          /* no_commit_under_an_old_token */
#define OFFSET_BEFORE_COMMIT (BUG == 4)             /* every_saga_ends */
#define OUTBOX_IN_ITS_OWN_TRANSACTION (BUG == 5)    /* history_and_outbox_agree */
#define SENT_BEFORE_ACKNOWLEDGED (BUG == 6)         /* sent_means_in_kafka */
#define NO_TOMBSTONE (BUG == 7)                     /* all_done_or_all_undone */
#define FENCE_LOOKS_BEFORE_IT_CLAIMS (BUG == 8)     /* all_done_or_all_undone */
#define SELECT_THEN_INSERT (BUG == 9)               /* effects_happen_once */
#define EFFECTS_IN_THEIR_OWN_TRANSACTION (BUG == 10) /* effects_happen_once */
#define NEW_ID_FOR_EACH_ATTEMPT (BUG == 11)         /* effects_happen_once */
#define FAILURE_CACHED (BUG == 12)                  /* failed_means_rolled_back */
#define UNTOLD_COMMIT_IS_A_FAILURE (BUG == 13)      /* failed_means_rolled_back */
#define PARTICIPANT_OFFSET_FIRST (BUG == 14)        /* every_saga_ends */
#define OLD_FAILURE_COUNTS (BUG == 15)              /* no_attempt_is_cut_short */
#define TIMERS_BEFORE_REPLIES (BUG == 16)           /* answers_before_timers */
#define UNKNOWN_COUNTS_AS_FAILED (BUG == 17)        /* all_done_or_all_undone */
#define COMPLETED_WITH_AN_UNKNOWN (BUG == 18)       /* all_done_or_all_undone */
#define LATE_ANSWER_COUNTS (BUG == 19)              /* settled_once */
#define UNDO_IN_ORDER (BUG == 20)                   /* undone_in_reverse */
#define UNDO_SIDE_BY_SIDE (BUG == 21)               /* undone_in_reverse */
#define REFUSED_COUNTS_AS_EXECUTED (BUG == 22)      /* stuck_is_true */

/* ---- guarantees: HOLDS checks one; its number is there to be found in what the checker prints ---- */
#define all_done_or_all_undone 1                    /* a saga that has ended is so for good, late commands or not */
#define every_saga_ends 2                           /* where nobody can do anything any more, it has, or is STUCK */
#define stuck_is_true 3                             /* it was executed, and nothing undoes it */
#define effects_happen_once 4                       /* of a command, and of its undo, which never comes first */
#define no_commit_under_an_old_token 5
#define history_and_outbox_agree 6                  /* an open row for each step that waits, and no other */
#define sent_means_in_kafka 7                       /* whatever the acknowledged position covers */
#define settled_once 8                              /* what is known of a step isn't decided again */
#define undone_in_reverse 9                         /* one after the other */
#define no_attempt_is_cut_short 10                  /* by what is told of another one */
#define answers_before_timers 11                    /* those that were there when the time was over are read first */
#define failed_means_rolled_back 12                 /* and nothing stored, so that a retry may succeed */
#define HOLDS(guarantee, condition) assert((condition) || 1000 == guarantee)

/* ---- words ---- */
#define ROWS (2 * STEPS)                            /* a command's row, and that of its undo or void */
#define COMMAND(step) (2 * (step))
#define UNDO(step) (2 * (step) + 1)
#define STEP(row) ((row) / 2)
#define IS_UNDO(row) ((row) % 2)
#define RECORDS (ROWS * MOST)                       /* a row's attempts, on their way */
#define RECORD(row, attempt) ((row) * MOST + (attempt) - 1)
#define ROW(record) ((record) / MOST)
#define ATTEMPT(record) ((record) % MOST + 1)

#define DONE 1
#define REFUSED 2
#define FAILED 3
#define UNDONE 4
#define NOTHING 5
#define VOIDED 6
#define EXECUTED 7
#define TOMBSTONE 8                                 /* only in an inbox */
#define UNKNOWN 5                                   /* of a step, as are DONE and REFUSED */
#define OPEN 6

#define RUNNING 1
#define COMPENSATING 2
#define COMPLETED 3
#define COMPENSATED 4

#define UNDOING 1                                   /* what became of a step's undo, once it was sent */
#define CLEARED 2
#define HALTED 3                                    /* STUCK: it was executed, and nothing undoes it */

/* ---- the orchestrator's Postgres: one shard, one saga ---- */
byte token;                                         /* of the shard's owner; 0: nobody ever */
bit seq;                                            /* of its commits: equal to the owner's, or one more */
bit begun;                                          /* the offset of the starts; the saga's is number 0 */
byte phase;
bit returned;                                       /* the saga's code has */
byte steps;                                         /* that were scheduled */
byte out[STEPS];                                    /* what is known of a step */
byte undo[STEPS];
bit undoable[STEPS];                                /* the contract names a compensation */
byte row[ROWS];                                     /* the outbox: the attempt that is open, or 0 */
bit covered[ROWS];                                  /* by the position up to which Kafka has acknowledged */

/* ---- Kafka ---- */
#define NEVER 0
#define WAITING 1
#define HELD 2                                      /* by a participant whose offset hasn't moved yet */
#define PASSED 3                                    /* by the participant's offset: it comes only as a copy */
byte kafka[RECORDS];                                /* the commands' topics, without an order */
chan replies = [ANSWERS] of { byte, byte };          /* from the shard's offset on: a commit takes the first away */

/* ---- the participant's Postgres ---- */
byte inbox[ROWS];                                   /* the stored answer; 0: no row */
byte lock[STEPS];                                   /* 1 + the instance whose open transaction has claimed it */
byte ran[STEPS], unran[STEPS];                      /* committed effects of handlers: to do, and to undo */

/* ---- only to know what is right ---- */
bit vacant;                                         /* the shard's owner has died */
byte due[ROWS];                                     /* an open row's time is over: 1 + the replies to read before */
byte by[STEPS];                                     /* whose attempt is in the inbox: for the bug of new ids */
byte faults = FAULTS;
#ifndef FOLLOWING
#define CAN_FAIL (faults > 0)
#define FAULT faults--
#define MAY_DIE CAN_FAIL
#define UNSEEN CAN_FAIL                             /* for what a recorded run (follow.pml) doesn't tell of */
#define SEEN(kind, who, what, with) true            /* what it tells of is done where it is told */
#define WENT_ON                                     /* and then comes the next that it tells */
#define GO_ON_IF_COMMITTED_SO
#define GO_ON_IF_ANSWERED_SO
#define GIVES_UP(s) (row[COMMAND(s)] == TRIES)
#define OVER(r) (len(replies) + 1)
#else
#include "follow.pml"
#endif

/* ---- guarantees about the databases, asked after each transaction of either ---- */
#define LEFT(s) (ran[s] - unran[s])
#define ENDED_WELL(s) ((phase != COMPLETED && phase != COMPENSATED) \
    || LEFT(s) == (out[s] == DONE && (phase == COMPLETED || !undoable[s])))
#define IS_STUCK(s) (undo[s] == HALTED)

inline check() {
    i = 0;
    do
    :: i < STEPS ->
        HOLDS(all_done_or_all_undone, ENDED_WELL(i));
        HOLDS(effects_happen_once, ran[i] <= 1 && unran[i] <= ran[i]);
        HOLDS(history_and_outbox_agree, (row[COMMAND(i)] != 0) == (out[i] == OPEN));
        HOLDS(history_and_outbox_agree, (row[UNDO(i)] != 0) == (undo[i] == UNDOING));
        HOLDS(stuck_is_true, !IS_STUCK(i) || LEFT(i) == 1 && !undoable[i]);
        i++
    :: else -> break
    od;
    i = 0
}

/* ---- the engine: pure decisions about the saga, made rows in the same transaction ---- */
#define NEEDS_UNDO(s) (undo[s] == 0 \
    && (out[s] == UNKNOWN && !UNKNOWN_COUNTS_AS_FAILED || out[s] == DONE && undoable[s]))
#define IN_THE_WAY(s) (undo[s] == UNDOING || undo[s] == HALTED)
#define IS_CLEAR(s) (s >= steps || undo[s] == CLEARED || out[s] == REFUSED || out[s] == DONE && !undoable[s])
#if STEPS == 1
#define LATER_ONES_ARE_CLEAR(s) true
#elif STEPS == 2
#define LATER_ONES_ARE_CLEAR(s) (s == 1 || IS_CLEAR(1))
#else
#define LATER_ONES_ARE_CLEAR(s) \
    ((s >= 1 || IS_CLEAR(1)) && (s >= 2 || IS_CLEAR(2)) && (s >= 3 || IS_CLEAR(3)))
#endif

inline open(r, attempt) { row[r] = attempt; covered[r] = 0; due[r] = 0 }
inline close(r) { row[r] = 0; covered[r] = 0; due[r] = 0 }
inline send_undo(s) { undo[s] = UNDOING; open(UNDO(s), 1) }

inline author() {                                   /* any code: it goes on, returns, or asks for the undo */
    if
    :: steps < STEPS ->
        if
        :: undoable[steps] = 1; printf("    the saga's code wants step %d, which can be undone\n", steps + 1)
        :: printf("    the saga's code wants step %d, which nothing undoes\n", steps + 1)
        fi;
        out[steps] = OPEN; open(COMMAND(steps), 1); steps++
    :: steps > 0 -> returned = 1; printf("    the saga's code returns\n")
    :: steps > 0 -> phase = COMPENSATING; printf("    the saga's code asks for the undo\n")
    fi
}

inline settle(s, as) {
    HOLDS(settled_once, out[s] == OPEN);
    out[s] = as; close(COMMAND(s));
    printf("    step %d is settled=%d\n", s + 1, as);
    if
    :: phase == RUNNING && as == UNKNOWN && NEEDS_UNDO(s) -> send_undo(s); author()
    :: phase == RUNNING && !(as == UNKNOWN && NEEDS_UNDO(s)) -> author()
    :: phase != RUNNING
    fi
}

inline retry(s) {
    HOLDS(no_attempt_is_cut_short, ATTEMPT(what) == row[COMMAND(s)]);
    if
    :: phase == RUNNING && row[COMMAND(s)] < TRIES -> open(COMMAND(s), row[COMMAND(s)] + 1)
    :: phase != RUNNING || GIVES_UP(s) -> settle(s, UNKNOWN)
    fi
}

inline cancel() {
    phase = COMPENSATING; i = 0;
    do
    :: i < steps && out[i] == OPEN -> out[i] = UNKNOWN; close(COMMAND(i)); i++
    :: i < steps && out[i] != OPEN -> i++
    :: i == steps -> break
    od
}

inline advance() {
    if
    :: phase == RUNNING && returned ->
        i = 0;
        do
        :: i < steps && (!IN_THE_WAY(i) || COMPLETED_WITH_AN_UNKNOWN) -> i++
        :: else -> break
        od;
        if
        :: i == steps -> phase = COMPLETED; printf("    COMPLETED\n")
        :: else
        fi
    :: phase == COMPENSATING ->
        i = steps;
        do
        :: i > 0 ->
            j = (UNDO_IN_ORDER -> steps - i : i - 1);
            if
            :: NEEDS_UNDO(j) ->
                HOLDS(undone_in_reverse, LATER_ONES_ARE_CLEAR(j));
                send_undo(j); printf("    the undo of step %d is due\n", j + 1)
            :: else
            fi;
            if
            :: IN_THE_WAY(j) && !UNDO_SIDE_BY_SIDE -> break
            :: else -> i--
            fi
        :: else -> break
        od;
        j = 0;
        do
        :: j < steps && !IN_THE_WAY(j) -> j++
        :: else -> break
        od;
        if
        :: i == 0 && j == steps -> phase = COMPENSATED; printf("    COMPENSATED\n")
        :: else
        fi;
        j = 0
    :: else
    fi;
    i = 0
}

#define START 1                                     /* where an event comes from */
#define LOG 2
#define TIMER 3
#define CONTROL 4

inline decide() {                                   /* about the event in the owner's hand */
    s = STEP(ROW(what));
    if
    :: from == START && phase == 0 -> phase = RUNNING; author()
    :: from == START && phase != 0                  /* a duplicate */
    :: from == CONTROL && phase == RUNNING -> cancel()
    :: from == CONTROL && phase != RUNNING
    :: from == LOG && !IS_UNDO(ROW(what)) ->
        if
        :: out[s] == OPEN && outcome == FAILED && (ATTEMPT(what) == row[COMMAND(s)] || OLD_FAILURE_COUNTS) -> retry(s)
        :: (out[s] == OPEN || LATE_ANSWER_COUNTS && out[s] == UNKNOWN) && outcome != FAILED -> settle(s, outcome)
        :: else                                     /* late, or the failure of an old attempt */
        fi
    :: from == LOG && IS_UNDO(ROW(what)) ->
        if
        :: undo[s] == UNDOING && outcome == EXECUTED -> undo[s] = HALTED; close(UNDO(s)); printf("    STUCK\n")
        :: undo[s] == UNDOING && outcome == FAILED && ATTEMPT(what) == row[UNDO(s)] ->
            open(UNDO(s), row[UNDO(s)] + 1)
        :: undo[s] == UNDOING && outcome != EXECUTED && outcome != FAILED ->
            undo[s] = CLEARED; close(UNDO(s)); printf("    step %d is cleared\n", s + 1)
        :: else
        fi
    :: from == TIMER && row[ROW(what)] == ATTEMPT(what) ->
        HOLDS(answers_before_timers, due[ROW(what)] == 1);
        if
        :: IS_UNDO(ROW(what)) -> open(UNDO(s), row[UNDO(s)] + 1)
        :: else -> retry(s)
        fi
    :: from == TIMER && row[ROW(what)] != ATTEMPT(what) /* answered, or sent again */
    fi;
    advance();
    s = 0
}

/* ---- a process of the orchestrator ---- */
#define OWNED (mine != 0)
#define TO_SEND 1                                   /* how far the relay is with a row */
#define SENT 2
#define ACKNOWLEDGED 3

inline relay_all() {                                /* the rows that the relay has to take up, or may forget */
    i = 0;
    do
    :: i < ROWS && row[i] == 0 -> at[i] = 0; relay[i] = 0; i++
    :: i < ROWS && row[i] != 0 && row[i] != at[i] ->
        at[i] = row[i]; relay[i] = (covered[i] -> ACKNOWLEDGED : TO_SEND); i++
    :: i < ROWS && row[i] != 0 && row[i] == at[i] -> i++
    :: i == ROWS -> break
    od;
    i = 0
}

inline put_down() { from = 0; what = 0; outcome = 0; checked = 0; held = 0 }

inline forget() {
    mine = 0; myseq = 0; put_down(); i = 0;
    do
    :: i < ROWS -> at[i] = 0; relay[i] = 0; i++
    :: else -> break
    od;
    i = 0
}

inline pass_reply() {                               /* the shard's offset moves */
    replies?_,_;
    i = 0;
    do
    :: i < ROWS && due[i] > 1 -> due[i]--; i++
    :: i < ROWS && due[i] <= 1 -> i++
    :: i == ROWS -> break
    od;
    i = 0
}

inline write() {                                    /* the transaction of a commit, behind its fence */
    HOLDS(no_commit_under_an_old_token, token == mine);
    seq = 1 - myseq;
    i = 0;
    do
    :: i < ROWS ->
        covered[i] = ((CAN_FAIL || SENT_BEFORE_ACKNOWLEDGED) /* else no owner will ever ask for it */
            && (covered[i] || row[i] != 0 && at[i] == row[i] && relay[i] == ACKNOWLEDGED));
        HOLDS(sent_means_in_kafka, !covered[i] || kafka[RECORD(i, row[i])] != NEVER);
        i++
    :: else -> break
    od;
    if
    :: from == LOG && !OFFSET_BEFORE_COMMIT -> pass_reply()
    :: from == START -> begun = 1
    :: else
    fi;
    decide();
    if
    :: OUTBOX_IN_ITS_OWN_TRANSACTION -> close(0)    /* which hasn't come yet */
    :: else
    fi;
    check()
}

inline commit() {
    if
    :: seq == myseq && (token == mine || checked || TOKEN_NOT_CHECKED) || FENCE_BY_ROW_COUNT ->
        printf("owner %d: commits under token %d\n", _pid, mine);
        write();
        GO_ON_IF_COMMITTED_SO
        if
        :: myseq = seq; put_down(); relay_all()
        :: UNSEEN -> FAULT; held = 1; printf("owner %d: never gets the answer\n", _pid)
        fi
    :: else ->
        if
        :: token == mine && seq != myseq ->
            printf("owner %d: that is committed\n", _pid);
            myseq = seq; put_down(); relay_all()
        :: else -> printf("owner %d: token %d is refused\n", _pid, mine); forget()
        fi
    fi
}

#define CAN_FIRE(r) (SEEN(COMMIT, _pid, TIMER, r) && (due[r] == 1 || due[r] != 0 && TIMERS_BEFORE_REPLIES))
#define FIRE(r) \
    :: from == 0 && CAN_FIRE(r) -> from = TIMER; what = RECORD(r, row[r]); \
        printf("owner %d: sees that the time of row=%d attempt %d is over\n", _pid, r, row[r])

#define PRODUCE(r) \
    :: atomic { relay[r] == TO_SEND && SEEN(PRODUCED, _pid, RECORD(r, at[r]), 0) -> \
        kafka[RECORD(r, at[r])] = WAITING; \
        printf("owner %d: produces row=%d attempt %d\n", _pid, r, at[r]); \
        WENT_ON \
        if \
        :: relay[r] = ACKNOWLEDGED \
        :: CAN_FAIL -> relay[r] = SENT; printf("owner %d: hears nothing of it yet\n", _pid) \
        fi } \
    :: atomic { SENT_BEFORE_ACKNOWLEDGED && relay[r] == TO_SEND -> relay[r] = ACKNOWLEDGED; \
        printf("owner %d: takes row=%d attempt %d for sent while it waits in the producer\n", _pid, r, at[r]) } \
    :: atomic { SENT_BEFORE_ACKNOWLEDGED && relay[r] == ACKNOWLEDGED && kafka[RECORD(r, at[r])] == NEVER -> \
        kafka[RECORD(r, at[r])] = WAITING }

active [OWNERS] proctype Owner() {
    byte mine;                                      /* its token; 0: it owns nothing */
    bit myseq;
    byte from, what, outcome;                       /* the event in its hand */
    bit held;                                       /* read, and not committed yet, or nobody knows */
    bit checked;                                    /* for the bug of reading the token without a lock */
    byte at[ROWS], relay[ROWS];                     /* the attempts in the relay's hands, and how far they are */
    byte i, j, s;

end:
    do
    :: atomic { SEEN(CLAIM, _pid, 0, 0) && !OWNED && (token == 0 && _pid == 0 || token != 0 && (vacant || CAN_FAIL)) ->
        if
        :: token == 0 || vacant
        :: else -> FAULT
        fi;
        token++; vacant = 0; mine = token; myseq = seq; relay_all();
        printf("owner %d: claims the shard with token %d\n", _pid, token);
        WENT_ON }

    :: atomic { OWNED && !held && (!begun && SEEN(COMMIT, _pid, START, 0)
            || nempty(replies) && SEEN(COMMIT, _pid, LOG, 0)
            || CAN_FAIL && phase == RUNNING && SEEN(COMMIT, _pid, CONTROL, 0) || CAN_FIRE(0) || CAN_FIRE(1)
#if STEPS > 1
            || CAN_FIRE(2) || CAN_FIRE(3)
#endif
#if STEPS > 2
            || CAN_FIRE(4) || CAN_FIRE(5) || CAN_FIRE(6) || CAN_FIRE(7)
#endif
            ) ->
        if
        :: !begun && SEEN(COMMIT, _pid, START, 0) -> from = START; printf("owner %d: reads the start\n", _pid)
        :: nempty(replies) && SEEN(COMMIT, _pid, LOG, 0) -> replies?<what, outcome>; from = LOG;
            printf("owner %d: reads a reply: row=%d attempt %d is outcome=%d\n", _pid, ROW(what), ATTEMPT(what), outcome)
        :: CAN_FAIL && phase == RUNNING && SEEN(COMMIT, _pid, CONTROL, 0) -> FAULT; from = CONTROL;
            printf("owner %d: reads a cancel\n", _pid)
        FIRE(0)
        FIRE(1)
#if STEPS > 1
        FIRE(2)
        FIRE(3)
#endif
#if STEPS > 2
        FIRE(4)
        FIRE(5)
        FIRE(6)
        FIRE(7)
#endif
        fi;
        if
        :: OFFSET_BEFORE_COMMIT && from == LOG -> pass_reply()
        :: OFFSET_BEFORE_COMMIT && from == START -> begun = 1
        :: else
        fi;
        if
        :: !TOKEN_READ_WITHOUT_LOCK -> commit()
        :: UNSEEN || TOKEN_READ_WITHOUT_LOCK -> held = 1; checked = (TOKEN_READ_WITHOUT_LOCK && token == mine)
        fi }
    :: atomic { OWNED && held -> commit() }

    PRODUCE(0)
    PRODUCE(1)
#if STEPS > 1
    PRODUCE(2)
    PRODUCE(3)
#endif
#if STEPS > 2
    PRODUCE(4)
    PRODUCE(5)
    PRODUCE(6)
    PRODUCE(7)
#endif
#ifdef FOLLOWING
    OTHER_EVENTS_OF_AN_OWNER
#endif

    :: atomic { OWNED && UNSEEN -> FAULT; vacant = (vacant || token == mine);
        printf("owner %d: dies\n", _pid); forget() }
    od
}

/* ---- an instance of the participant ---- */
#define CLAIMED 1                                   /* how far it is with the record that it has taken */
#define ANSWERED 2

#define IS_FOUND(r, attempt) \
    (inbox[r] != 0 && !(NEW_ID_FOR_EACH_ATTEMPT && !IS_UNDO(r) && by[STEP(r)] != attempt))
#define ORIGINAL inbox[COMMAND(STEP(ROW(what)))]

inline find(r) {
    answer = (inbox[r] == TOMBSTONE -> REFUSED : inbox[r]); stage = ANSWERED;
    printf("participant %d: finds in the inbox: outcome=%d\n", _pid, inbox[r])
}
inline leave() { stage = 0; what = 0; answer = 0; known = 0; looked = 0; rolled_back = 0 }
inline store(said) {
    answer = said;
    inbox[ROW(what)] = (EFFECTS_IN_THEIR_OWN_TRANSACTION -> inbox[ROW(what)] : said)
}

#define TAKE(k) \
    :: atomic { stage == 0 && SEEN(TAKEN, _pid, ROW(k), 0) && (kafka[k] == WAITING || CAN_FAIL && kafka[k] > WAITING) \
            && (!looked || what == k) \
            && (IS_FOUND(ROW(k), ATTEMPT(k)) || lock[STEP(ROW(k))] == 0 || SELECT_THEN_INSERT) -> \
        if \
        :: kafka[k] == WAITING -> kafka[k] = (PARTICIPANT_OFFSET_FIRST -> PASSED : HELD) \
        :: else -> FAULT \
        fi; \
        what = k; \
        printf("participant %d: takes row=%d attempt %d\n", _pid, ROW(k), ATTEMPT(k)); \
        WENT_ON \
        if \
        :: IS_FOUND(ROW(k), ATTEMPT(k)) -> find(ROW(k)) \
        :: else -> lock[STEP(ROW(k))] = (SELECT_THEN_INSERT -> 0 : _pid + 1); stage = CLAIMED; \
            known = (looked -> known : inbox[COMMAND(STEP(ROW(k)))]) \
        fi } \
    :: atomic { FENCE_LOOKS_BEFORE_IT_CLAIMS && stage == 0 && kafka[k] == WAITING && IS_UNDO(ROW(k)) && !looked -> \
        looked = 1; what = k; known = inbox[COMMAND(STEP(ROW(k)))]; \
        printf("participant %d: looks for what row=%d is to undo\n", _pid, ROW(k)) }

#if MOST == 3
#define TAKE_ROW(r) TAKE(3 * r) TAKE(3 * r + 1) TAKE(3 * r + 2)
#endif

active [PARTICIPANTS] proctype Participant() {
    byte stage, what, answer;
    byte known;                                     /* of what an undo or a void is about, read behind the claim */
    bit looked;                                     /* for the bug of reading it before */
    bit rolled_back;                                /* the handler ran for this delivery, and nothing of it is left */
    byte i;

end:
    do
    TAKE_ROW(0)
    TAKE_ROW(1)
#if STEPS > 1
    TAKE_ROW(2)
    TAKE_ROW(3)
#endif
#if STEPS > 2
    TAKE_ROW(4)
    TAKE_ROW(5)
    TAKE_ROW(6)
    TAKE_ROW(7)
#endif

    :: atomic { stage == CLAIMED && SEEN(ENDED, _pid, ROW(what), 0) -> /* the transaction, to its end */
        i = STEP(ROW(what));
        if
        :: !IS_UNDO(ROW(what)) ->
            if
            :: ran[i]++; store(DONE); by[i] = (NEW_ID_FOR_EACH_ATTEMPT -> ATTEMPT(what) : 0)
            :: store(REFUSED)
            :: answer = FAILED; rolled_back = 1; inbox[ROW(what)] = (FAILURE_CACHED -> FAILED : inbox[ROW(what)])
            fi
        :: IS_UNDO(ROW(what)) && known == DONE && undoable[i] ->
            if
            :: unran[i]++; store(UNDONE)
            :: CAN_FAIL && ATTEMPT(what) < MOST -> FAULT; answer = FAILED; rolled_back = 1
            fi
        :: IS_UNDO(ROW(what)) && !undoable[i] && (known == DONE || REFUSED_COUNTS_AS_EXECUTED && known == REFUSED) ->
            store(EXECUTED)
        :: IS_UNDO(ROW(what)) && known != DONE && !(REFUSED_COUNTS_AS_EXECUTED && !undoable[i] && known == REFUSED) ->
            ORIGINAL = (ORIGINAL == 0 && !NO_TOMBSTONE -> TOMBSTONE : ORIGINAL);
            store((undoable[i] -> NOTHING : (known == REFUSED -> REFUSED : VOIDED)))
        fi;
        lock[i] = 0; stage = ANSWERED;
        printf("participant %d: ends its transaction: outcome=%d\n", _pid, answer);
        check();
        GO_ON_IF_ANSWERED_SO
        if
        :: true
        :: UNSEEN && answer != FAILED -> FAULT;
            printf("participant %d: never gets the answer to its commit\n", _pid);
            if
            :: UNTOLD_COMMIT_IS_A_FAILURE -> answer = FAILED
            :: else -> find(ROW(what))              /* it claims again, and finds what is stored */
            fi
        fi }

    :: atomic { stage == ANSWERED && SEEN(REPLIED, _pid, what, answer) -> /* the reply, and then the offset */
        HOLDS(failed_means_rolled_back, answer != FAILED || rolled_back);
        inbox[ROW(what)] = (EFFECTS_IN_THEIR_OWN_TRANSACTION && answer != FAILED -> answer : inbox[ROW(what)]);
        assert(nfull(replies));    /* else ANSWERS is too small */
        replies!what,answer;
        printf("participant %d: replies to row=%d attempt %d: outcome=%d\n", _pid, ROW(what), ATTEMPT(what), answer);
        if
        :: kafka[what] = (kafka[what] == HELD -> PASSED : kafka[what])
        :: UNSEEN && kafka[what] == HELD -> FAULT; kafka[what] = WAITING;
            printf("participant %d: dies before its offset moves\n", _pid)
        fi;
        WENT_ON
        leave() }

    :: atomic { stage != 0 && MAY_DIE -> FAULT;
        printf("participant %d: dies\n", _pid);
        i = STEP(ROW(what));
        lock[i] = (lock[i] == _pid + 1 -> 0 : lock[i]);
        kafka[what] = (kafka[what] == HELD -> WAITING : kafka[what]);
        i = 0;
        WENT_ON
        leave() }
    od
}

/* ---- time, and the end ---- */
#define RUNS_OUT(r) \
    :: atomic { row[r] != 0 && row[r] < MOST && due[r] == 0 && CAN_FAIL && SEEN(COMMIT, ANYBODY, TIMER, r) -> FAULT; due[r] = OVER(r); \
        printf("clock: the time of row=%d attempt %d is over\n", r, row[r]) }

active proctype Clock() {
end:
    do
    RUNS_OUT(0)
    RUNS_OUT(1)
#if STEPS > 1
    RUNS_OUT(2)
    RUNS_OUT(3)
#endif
#if STEPS > 2
    RUNS_OUT(4)
    RUNS_OUT(5)
    RUNS_OUT(6)
    RUNS_OUT(7)
#endif
    od
}

#ifndef FOLLOWING
active proctype AtRest() {
    byte i;
end:
    timeout -> i = 0;
    do
    :: i < STEPS && !IS_STUCK(i) -> i++
    :: else -> break
    od;
    HOLDS(every_saga_ends, phase == COMPLETED || phase == COMPENSATED || i < STEPS)
}
#else
READER
#endif
