/* canon_rules.c -- the table of pass canon's rules (rewrite.h).  For one root op, rules are tried
 * in this order.  To add a rule: a line here, rule_<name> in its theme's file when it needs
 * attributes, an instance of its left side in tests/property/rules.c (which fails without one), a
 * lit test. */
#include "passes/canon_rules.h"

const Rule canon_rules[] = {
    /* ---- numbers ---- */
    RULE(add_minus_zero, P(ADD, P_VAR(0), P_CONST(-0.0)), P_VAR(0), TREE, EXACT),
    RULE(add_zero, P(ADD, P_VAR(0), P_CONST(0.0)), P_VAR(0), TREE, REASSOC), /* -0 + 0 = 0 */
    RULE(sub_zero, P(SUB, P_VAR(0), P_CONST(0.0)), P_VAR(0), TREE, EXACT),
    RULE(mul_one, P(MUL, P_VAR(0), P_CONST(1.0)), P_VAR(0), TREE, EXACT),
    RULE(mul_minus_one, P(MUL, P_VAR(0), P_CONST(-1.0)), P(NEG, P_VAR(0)), KIND, EXACT),
    RULE(div_one, P(DIV, P_VAR(0), P_CONST(1.0)), P_VAR(0), TREE, EXACT),
    RULE(div_minus_one, P(DIV, P_VAR(0), P_CONST(-1.0)), P(NEG, P_VAR(0)), KIND, EXACT),
    RULE(neg_of_neg, P(NEG, P(NEG, P_VAR(0))), P_VAR(0), TREE, EXACT),
    RULE(add_of_neg, P(ADD, P_VAR(0), P(NEG, P_VAR(1))), P(SUB, P_VAR(0), P_VAR(1)), TREE, EXACT),
    RULE(sub_of_neg, P(SUB, P_VAR(0), P(NEG, P_VAR(1))), P(ADD, P_VAR(0), P_VAR(1)), TREE, EXACT),
    RULE(mul_of_negs, P(MUL, P(NEG, P_VAR(0)), P(NEG, P_VAR(1))), P(MUL, P_VAR(0), P_VAR(1)), TREE,
         EXACT),
    RULE(div_of_negs, P(DIV, P(NEG, P_VAR(0)), P(NEG, P_VAR(1))), P(DIV, P_VAR(0), P_VAR(1)), TREE,
         EXACT),
    RULE(max_same, P(MAX, P_VAR(0), P_VAR(0)), P_VAR(0), TREE, EXACT),
    RULE(min_same, P(MIN, P_VAR(0), P_VAR(0)), P_VAR(0), TREE, EXACT),
    RULE_FN(div_by_power_of_two, P_ANY(DIV), KIND, EXACT),
    /* ---- logic and choice ---- */
    RULE(not_of_not, P(NOT, P(NOT, P_VAR(0))), P_VAR(0), TREE, EXACT),
    RULE(and_same, P(AND, P_VAR(0), P_VAR(0)), P_VAR(0), TREE, EXACT),
    RULE(and_true, P(AND, P_VAR(0), P_CONST(1.0)), P_VAR(0), TREE, EXACT),
    RULE(and_false, P(AND, P_VAR(0), P_CONST(0.0)), P_CONST(0.0), TREE, EXACT),
    RULE(or_same, P(OR, P_VAR(0), P_VAR(0)), P_VAR(0), TREE, EXACT),
    RULE(or_false, P(OR, P_VAR(0), P_CONST(0.0)), P_VAR(0), TREE, EXACT),
    RULE(or_true, P(OR, P_VAR(0), P_CONST(1.0)), P_CONST(1.0), TREE, EXACT),
    RULE(select_same, P(SELECT, P_VAR(0), P_VAR(1), P_VAR(1)), P_VAR(1), TREE, EXACT),
    RULE(select_of_not, P(SELECT, P(NOT, P_VAR(0)), P_VAR(1), P_VAR(2)),
         P(SELECT, P_VAR(0), P_VAR(2), P_VAR(1)), TREE, EXACT),
    RULE_FN(select_const, P_ANY(SELECT), TREE, EXACT),
    /* ---- casts ---- */
    RULE_FN(cast_same, P(CAST, P_VAR(0)), TREE, EXACT),
    RULE_FN(cast_of_cast, P(CAST, P(CAST, P_VAR(0))), TREE, EXACT),
    RULE_FN(cast_of_view_of_cast, P(CAST, P(RESHAPE, P(CAST, P_VAR(0)))), TREE, EXACT),
    RULE_FN(cast_of_view_of_cast, P(CAST, P(TRANSPOSE, P(CAST, P_VAR(0)))), TREE, EXACT),
    RULE_FN(cast_of_view_of_cast, P(CAST, P(SLICE, P(CAST, P_VAR(0)))), TREE, EXACT),
    RULE_FN(cast_of_view_of_cast, P(CAST, P(PAD, P(CAST, P_VAR(0)))), TREE, EXACT),
    /* ---- views ---- */
    RULE_FN(broadcast_same, P(BROADCAST, P_VAR(0)), TREE, EXACT),
    RULE_FN(view_of_const, P(BROADCAST, P_ANY(CONST)), TREE, EXACT),
    RULE_FN(broadcast_of_broadcast, P(BROADCAST, P(BROADCAST, P_VAR(0))), TREE, EXACT),
    RULE_FN(broadcast_of_reshape, P(BROADCAST, P(RESHAPE, P_VAR(0))), TREE, EXACT),
    RULE_FN(broadcast_to_reshape, P(BROADCAST, P_VAR(0)), KIND, EXACT),
    RULE_FN(reshape_same, P(RESHAPE, P_VAR(0)), TREE, EXACT),
    RULE_FN(view_of_const, P(RESHAPE, P_ANY(CONST)), TREE, EXACT),
    RULE_FN(reshape_of_reshape, P(RESHAPE, P(RESHAPE, P_VAR(0))), TREE, EXACT),
    RULE_FN(transpose_identity, P(TRANSPOSE, P_VAR(0)), TREE, EXACT),
    RULE_FN(view_of_const, P(TRANSPOSE, P_ANY(CONST)), TREE, EXACT),
    RULE_FN(transpose_of_transpose, P(TRANSPOSE, P(TRANSPOSE, P_VAR(0))), TREE, EXACT),
    RULE_FN(transpose_to_reshape, P(TRANSPOSE, P_VAR(0)), KIND, EXACT),
    RULE_FN(slice_everything, P(SLICE, P_VAR(0)), TREE, EXACT),
    RULE_FN(view_of_const, P(SLICE, P_ANY(CONST)), TREE, EXACT),
    RULE_FN(slice_of_slice, P(SLICE, P(SLICE, P_VAR(0))), TREE, EXACT),
    RULE_FN(slice_of_pad, P(SLICE, P(PAD, P_VAR(0))), TREE, EXACT),
    RULE_FN(slice_of_concat, P(SLICE, P_ANY(CONCAT)), TREE, EXACT),
    RULE_FN(slice_of_broadcast, P(SLICE, P(BROADCAST, P_VAR(0))), COST, EXACT),
    RULE_FN(pad_nothing, P(PAD, P_VAR(0)), TREE, EXACT),
    RULE_FN(view_of_const, P(PAD, P_ANY(CONST)), TREE, EXACT),
    RULE_FN(pad_of_pad, P(PAD, P(PAD, P_VAR(0))), TREE, EXACT),
    RULE_FN(concat_of_one, P_ANY(CONCAT), TREE, EXACT),
    RULE_FN(concat_of_concat, P_ANY(CONCAT), TREE, EXACT),
    RULE_FN(concat_of_pads, P(ADD, P(PAD, P_VAR(0)), P(PAD, P_VAR(1))), COST,
            REASSOC), /* -0 + 0 = 0 */
    /* ---- reductions ---- */
    RULE_FN(reduce_max_of_const, P(REDUCE_MAX, P_ANY(CONST)), TREE, EXACT),
    RULE_FN(reduce_unit, P(REDUCE_MAX, P_VAR(0)), KIND, EXACT),
    RULE_FN(reduce_unit, P(REDUCE_SUM, P_VAR(0)), KIND, REASSOC), /* 0 + -0 = 0 */
    RULE_FN(reduce_of_reduce, P(REDUCE_MAX, P(REDUCE_MAX, P_VAR(0))), TREE, EXACT),
    RULE_FN(reduce_of_reduce, P(REDUCE_SUM, P_ONCE(REDUCE_SUM, P_VAR(0))), TREE, REASSOC),
    RULE_FN(reduce_max_of_broadcast, P(REDUCE_MAX, P(BROADCAST, P_VAR(0))), COST, EXACT),
    RULE_FN(reduce_sum_of_broadcast, P(REDUCE_SUM, P(BROADCAST, P_VAR(0))), COST, REASSOC),
    /* ---- contractions, lookup, storage ---- */
    RULE_FN(matmul_of_transpose, P(MATMUL, P(TRANSPOSE, P_VAR(0)), P_VAR(1)), TREE, EXACT),
    RULE_FN(matmul_of_transpose, P(MATMUL, P_VAR(0), P(TRANSPOSE, P_VAR(1))), TREE, EXACT),
    RULE_FN(scatter_into_sum,
            P(ADD, P_VAR(0), P_ONCE(SCATTER_ADD, P_CONST(0.0), P_VAR(1), P_VAR(2))), TREE, REASSOC),
    RULE_FN(drop_nothing, P(DROP, P_VAR(0), P_VAR(1)), TREE, EXACT),
    RULE_FN(pack_of_one, P_ANY(PACK), KIND, EXACT),
    RULE_FN(pack_of_views, P_ANY(PACK), KIND, EXACT),
    /* ---- any element-wise op ---- */
    RULE_FN(fold_point, P_ANY(NONE), TREE, EXACT),
    RULE_FN(point_of_broadcasts, P_ANY(NONE), COST, EXACT),
};
const uint32_t n_canon_rules = sizeof canon_rules / sizeof *canon_rules;
