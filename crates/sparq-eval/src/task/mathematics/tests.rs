use super::*;
use proptest::prelude::*;

#[test]
fn the_same_in_other_words() {
    for (first, second) in [
        (r"\frac{14}{3}", r"\dfrac{14}{3}"),
        (r"\frac43", "4/3"),
        (r"\frac 59", r"$\frac{5}{9}$"),
        (r"\frac9{19}", r"9/19"),
        (r"\frac{1}{2}", "0.5"),
        (r"-\frac{3}{8}", r"\frac{-3}{8}"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        (r"11\sqrt2", r"11 \sqrt{2}"),
        (r"70 \sqrt{2}", r"70\cdot\sqrt{2}"),
        (r"\sqrt[3]{8}", "2"),
        (r"\sqrt{51}", r"51^{1/2}"),
        (r"11 \sqrt{5} + 11", r"11(1+\sqrt5)"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", r"90\text{ degrees}"),
        (r"\frac{270}7\text{ degrees}", r"270/7"),
        (r"5.4 \text{ cents}", "5.4"),
        (r"864 \mbox{ inches}^2", r"864\text{ square inches}"),
        (r"15\mbox{ cm}^2", "15"),
        (r"\$18.90", "18.9"),
        (r"\$32,\!348", "32348"),
        (r"10,\!080", "10,080"),
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        ("58,500", "58500"),
        (r"50\%", "50"),
        (".0000672", "6.72*10^{-5}"),
        ("1.25", r"1\frac{1}{4}"),
        (r"137 \frac{1}{2}", "137.5"),
        (r"1\frac45", r"\frac{9}{5}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
        (r"\left(\frac{3}{5},\frac{8}{3}\right]", r"(0.6, 8/3]"),
        (r"(-\infty, 2) \cup (3, \infty)", r"(3,\infty)\cup(-\infty,2)"),
        (r"x \in [-2,7]", "[-2, 7]"),
        ("1,-2", "-2, 1"),
        ("3, 5, 7", r"3, 5, \text{ and } 7"),
        (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1+\sqrt{5}, 1-\sqrt{5}\}"),
        (r"1 \pm \sqrt{19}", r"1 - \sqrt{19}, 1 + \sqrt{19}"),
        (r"3 \pm 2 \sqrt{2}", r"3 \pm \sqrt{8}"),
        (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\begin{bmatrix} -\frac13 \\ \frac23 \end{bmatrix}"),
        (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\begin{pmatrix}-1&0\\0&-1\\\end{pmatrix}"),
        ("x=5", "5"),
        ("5", r"x = 5"),
        ("y = 2x + 3", "2x + 3"),
        ("5x - 7y + 11z + 4 = 0", "10x - 14y + 22z = -8"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{east}", "East"),
        (r"\text{(C)}", "C"),
        ("(C)", r"\text{C}"),
        ("p - q", "-q + p"),
        ("6 - 5i", "-5i+6"),
        ("(a+5)(b+2)", "ab+2a+5b+10"),
        (r"\frac{11+9a}{20}", r"\frac{11}{20} + \frac{9}{20}a"),
        ("x^5 - x^4 + x^3 - x^2 + x - 1", "-1+x-x^{2}+x^3-x^4+x^5"),
        (r"4210_{5}", "4210_5"),
        (r"\cot x", r"\frac{\cos x}{\sin x}"),
        (r"288 \pi", r"288π"),
        (r"\frac{20000}{\pi}", r"20000/\pi"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
    ] {
        assert!(equivalent(first, second), "{first} and {second}");
        assert!(equivalent(second, first), "{second} and {first}");
        assert!(equivalent(first, first) && equivalent(second, second));
    }
}

#[test]
fn not_the_same() {
    for (first, second) in [
        ("", ""),
        ("5", ""),
        (r"\frac{1}{3}", "0.3333"),
        (r"\frac{1}{2}", "2"),
        ("[2, 5)", "(2, 5)"),
        ("(2, 5)", "(5, 2)"),
        ("(1, 2)", "1, 2"),
        ("1, 2", "1, 2, 2"),
        ("1, 1, 2", "1, 2, 2"),
        (r"\{1, 2\}", "1"),
        ("52_8", "52"),
        ("52_8", "52_9"),
        (r"1 \pm \sqrt{19}", r"1 + \sqrt{19}"),
        ("5x - 7y = 0", "5x + 7y = 0"),
        ("x = 5", "x = 6"),
        (r"\text{Evelyn}", r"\text{Angela}"),
        ("3R^2", "3r^2"),
        ("2k", "2k + 2"),
        (r"\sqrt{2}", "1.41421356"),
        (r"\infty", r"-\infty"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
        ("1/0", "2/0"),
        ("x", "y"),
        ("12", "1 2x"),
    ] {
        assert!(!equivalent(first, second), "{first} and {second}");
        assert!(!equivalent(second, first), "{second} and {first}");
    }
}

#[test]
fn hostile_answers_neither_panic_nor_take_long() {
    for text in [
        "(".repeat(100_000),
        r"\frac{".repeat(500),
        "-".repeat(500),
        "{".repeat(400) + "1" + &"}".repeat(400),
        "((((1,2),3),4),5)".repeat(20),
        r"\sqrt".repeat(300),
        "2^".repeat(250) + "2",
        "9".repeat(600),
        "\\".to_owned(),
        r"\text{".to_owned(),
        r"\begin{".to_owned(),
        "ä∞√".to_owned(),
    ] {
        let _ = equivalent(&text, "1") || equivalent("1", &text) || equivalent(&text, &format!("{text}1"));
    }
}

proptest! {
    #[test]
    fn fractions_are_their_values(a in -999_i32..999, b in 1_i32..999, k in 1_i32..50) {
        let plain = format!("{a}/{b}");
        let scaled = format!(r"\frac{{{}}}{{{}}}", a * k, b * k);
        prop_assert!(equivalent(&plain, &scaled));
        let other = format!("{}/{b}", a + 1);
        prop_assert!(!equivalent(&other, &scaled));
    }

    #[test]
    fn any_text_is_bearable(a in "[-+*/^_(){}\\[\\],.=0-9a-e\\\\ ]{0,40}", b in "[-+(){},0-9x\\\\fracsqt ]{0,40}") {
        prop_assert_eq!(equivalent(&a, &b), equivalent(&b, &a));
    }
}
